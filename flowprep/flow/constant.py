"""A test engine: the same flow everywhere, at no cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flowprep.records import F32, U8


class Constant:
    """Flow (dx, dy) at every pixel of every pair of different frames."""

    name = "constant"
    build = "constant"

    def __init__(
        self, *, device: int | None = None, threads: int = 1, dx: float = 1.0, dy: float = -0.5
    ) -> None:
        self.params = {"dx": dx, "dy": dy}

    def compute(self, gray_THW: U8) -> F32:
        n, (height, width) = len(gray_THW) - 1, gray_THW.shape[1:]
        flow = np.empty((n, 2, height, width), np.float32)
        flow[:, 0] = self.params["dx"]
        flow[:, 1] = self.params["dy"]
        for i in range(n):
            if np.array_equal(gray_THW[i], gray_THW[i + 1]):
                flow[i] = 0
        return flow

    def compute_batch(self, clips: Sequence[U8]) -> list[F32]:
        return [self.compute(clip) for clip in clips]
