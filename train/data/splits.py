"""Which videos are for training, for choosing, for testing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from flowprep.errors import FlowprepError
from flowprep.records import I64

SPLITS = ("train", "val", "test")
TRAIN, VAL, TEST = range(3)
ENOUGH_VIDEOS = 5
"""In each class, for every class to give some of its own."""


def held_out(videos: Sequence[str], class_V: I64, share: float) -> I64:
    """Places of the videos to hold out, ascending.

    Every class gives `share` of its videos, rounded, at least one, if each has ENOUGH_VIDEOS;
    otherwise that share of all videos is drawn together, and each class keeps at least one for
    training. Which ones is told by a hash of the path: neither the seed of a run nor the order of
    the videos changes it, so that a student holds out what its teacher did. Raises FlowprepError
    when no class can spare one.
    """
    order = np.lexsort((np.argsort(np.argsort(_hashes(videos))), class_V))
    _, first, size = np.unique(class_V[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(first, size)
    if size.min() >= ENOUGH_VIDEOS:
        quota = np.maximum(1, np.rint(share * size))
        return np.sort(order[rank < np.repeat(quota, size)])
    spare = order[rank < np.repeat(size - 1, size)]
    if not len(spare):
        raise FlowprepError(
            "every class has a single video: none can be held out for validation",
            "add videos, or give a split `val` in --labels",
        )
    hashes = _hashes([videos[i] for i in spare])
    return np.sort(spare[np.argsort(hashes)[: max(1, round(share * len(videos)))]])


def _hashes(videos: Sequence[str]) -> list[bytes]:
    return [hashlib.blake2b(video.encode(), digest_size=8).digest() for video in videos]


def check_splits(videos: Sequence[str], video_N: I64, split_N: I64) -> None:
    """Raise FlowprepError where the samples of a video lie in two splits."""
    _, first, video_place = np.unique(video_N, return_index=True, return_inverse=True)
    if (torn := np.flatnonzero(split_N != split_N[first][video_place])).size:
        video = videos[int(video_N[torn[0]])]
        raise FlowprepError(
            f"clips of {video} lie in different splits", "put all clips of a video in one split"
        )
