"""Shards: tars of samples, their commit marks and the index."""
