"""What files are called."""

from __future__ import annotations

VIDEO_SUFFIXES = frozenset(
    [
        ".mp4",
        ".m4v",
        ".mov",
        ".mkv",
        ".webm",
        ".avi",
        ".gif",
        ".mpg",
        ".mpeg",
        ".ts",
        ".mts",
        ".m2ts",
        ".flv",
        ".wmv",
        ".asf",
        ".ogv",
        ".3gp",
    ]
)
INTERNAL = "_flowprep"
"""The folder in a dataset that holds all but its tars."""
IMAGE_SUFFIXES = frozenset([".jpg", ".jpeg", ".png"])
