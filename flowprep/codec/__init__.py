"""Codecs: frame arrays to the bytes of one tar member, and back."""
