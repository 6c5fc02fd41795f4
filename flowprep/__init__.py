"""Videos to verified WebDataset shards of RGB and TV-L1 optical flow."""

__version__ = "0.1.0"
