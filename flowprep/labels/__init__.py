"""Labels and splits from a dataset's own annotation files, joined with videos by name."""
