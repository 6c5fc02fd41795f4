"""Decoders: a video file to resized RGB frames."""
