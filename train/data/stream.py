"""The order of training: a function of the seed and of what there is, and of nothing else.

Videos come in an endless row of permutations, one an epoch, so that each is seen once in every
epoch and none is dropped where one ends. A position in this row decides all that is random about
one window; workers, world size and what was read before do not.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from flowprep.errors import FlowprepError
from flowprep.records import I64

ORDER, WINDOW = 0, 1
"""What a seed is used for, so that no two uses draw the same numbers."""


class Stream:
    """An endless row of the numbers 0..n_videos-1."""

    def __init__(self, n_videos: int, seed: int) -> None:
        self.n_videos, self.seed = n_videos, seed

    def video(self, position: int) -> int:
        """The video at a position, 0 and up."""
        epoch, place = divmod(position, self.n_videos)
        return int(_permutation(self.n_videos, self.seed, epoch)[place])

    def rng(self, position: int, attempt: int = 0) -> np.random.Generator:
        """What decides the window at a position; `attempt` counts the samples that were damaged."""
        return np.random.default_rng((self.seed, WINDOW, position, attempt))


@lru_cache(maxsize=2)  # a batch may lie across the end of an epoch
def _permutation(n: int, seed: int, epoch: int) -> I64:
    return np.random.default_rng((seed, ORDER, epoch)).permutation(n)


def positions(step: int, batch: int, rank: int, world: int) -> range:
    """What `rank` reads in a step of `batch` windows over all `world` processes."""
    share = share_of(batch, world)
    return range(step * batch + rank * share, step * batch + (rank + 1) * share)


def share_of(batch: int, world: int) -> int:
    """Windows of one process. Raises FlowprepError where they do not divide evenly."""
    if batch % world:
        raise FlowprepError(
            f"--batch {batch} does not divide among {world} processes",
            f"give a multiple of {world}",
        )
    return batch // world


class SamplesOfVideos:
    """The samples of each video, of which one is drawn by its length."""

    def __init__(self, video_N: I64, frames_N: I64) -> None:
        """From the video and the number of frames of every sample."""
        _, numbered = np.unique(video_N, return_inverse=True)
        self._row_N = np.argsort(numbered, kind="stable")
        self._end_N = np.cumsum(frames_N[self._row_N])
        self._first_V = np.searchsorted(numbered[self._row_N], np.arange(numbered.max() + 2))

    def __len__(self) -> int:
        """Videos."""
        return len(self._first_V) - 1

    def draw(self, video: int, rng: np.random.Generator) -> int:
        """A sample of a video, numbered in the order of `video_N`: as likely as it is long."""
        first, last = self._first_V[video], self._first_V[video + 1]
        before = self._end_N[first - 1] if first else 0
        frame = rng.integers(before, self._end_N[last - 1])
        return int(self._row_N[first + np.searchsorted(self._end_N[first:last], frame, "right")])
