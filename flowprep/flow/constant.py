"""A test engine: the same flow everywhere, at no cost."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from flowprep.flow.pairwise import PairEngine
from flowprep.records import U8


class Constant(PairEngine):
    """Flow (dx, dy) at every pixel of every pair of different frames."""

    name = "constant"
    build = "constant"

    def __init__(
        self, *, device: int | None = None, threads: int = 1, dx: float = 1.0, dy: float = -0.5
    ) -> None:
        self.params = {"dx": dx, "dy": dy}

    def _flows(self, gray_THW: U8) -> Iterator[np.ndarray]:
        shift = np.array([self.params["dx"], self.params["dy"]], np.float32)[:, None, None]
        flow_2HW = np.broadcast_to(shift, (2, *gray_THW.shape[1:]))
        for before, after in pairwise(gray_THW):
            yield np.zeros_like(flow_2HW) if np.array_equal(before, after) else flow_2HW
