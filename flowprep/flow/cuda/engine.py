"""The engine `cuda`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from flowprep.errors import FlowprepError
from flowprep.flow.cuda.batches import Batches, Run, Solved
from flowprep.flow.cuda.device import CupyDevice, Device
from flowprep.flow.cuda.layout import Codes
from flowprep.flow.pairwise import check_gray, check_threads, tvl1_params
from flowprep.records import F32, U8

NUMERICS = ("fast", "exact")
MEMORY_SHARE = 0.8  # of the device, at most, by all of its workers together
FLOAT32 = Codes()


class Cuda:
    """TV-L1 by OpenCV CUDA's rules in float32, many pairs in one launch.

    `numerics` is "fast" (inverses and roots to 1 or 2 units in the last place) or "exact" (every
    operation rounded as IEEE 754 says). A pair's bits depend on neither batch, chunk nor run.
    `gpu_share` is the part of the device's memory that this engine plans with, as several workers
    use one device; `gpu_bytes` is what all of them may take (default: 80 % of it).
    """

    name = "cuda"

    def __init__(
        self,
        *,
        device: int | None = None,
        threads: int = 1,
        gpu_share: float = 1.0,
        gpu_bytes: int | None = None,
        numerics: str = "fast",
        open_device: Callable[[int, bool], Device] = CupyDevice,
        **params: Any,
    ) -> None:
        if numerics not in NUMERICS:
            raise FlowprepError(
                f"numerics = {numerics!r} is not possible", f"choose one of: {', '.join(NUMERICS)}"
            )
        self._tvl1 = tvl1_params(params)
        check_threads(threads)
        self._device = open_device(device or 0, numerics == "exact")
        limit = gpu_bytes or int(MEMORY_SHARE * self._device.total_bytes)
        self._budget_bytes = int(gpu_share * limit)
        self._batches: Batches | None = None
        self.params = {**self._tvl1.as_dict(), "rules": "cuda", "numerics": numerics}
        self.build = f"float32, {self._device.build}"

    def compute(self, gray_THW: U8) -> F32:
        return self.compute_batch([gray_THW])[0]

    def compute_batch(self, clips: Sequence[U8]) -> list[F32]:
        for gray_THW in clips:
            check_gray(gray_THW)
        flows = [np.empty((len(clip) - 1, 2, *clip.shape[1:]), np.float32) for clip in clips]
        for runs, solved in self.solve(clips):
            start = 0
            for run in runs:
                stop = start + run.n_pairs
                flows[run.clip][run.first : run.last] = solved.out[start:stop]
                start = stop
        return flows

    def batch_pairs(self, size_HW: tuple[int, int]) -> int:
        return self._batches_for(size_HW).capacity.n_pairs

    def solve(
        self, clips: Sequence[U8], codes: Codes = FLOAT32
    ) -> Iterator[tuple[list[Run], Solved]]:
        """Batch by batch, the runs of successive frames that it holds and what came of them."""
        for size_HW, group in groupby(range(len(clips)), lambda i: clips[i].shape[1:]):
            batches = self._batches_for(size_HW)
            for runs in batches.capacity.cut([(i, len(clips[i])) for i in group]):
                yield runs, batches.solve(clips, runs, codes)

    def _batches_for(self, size_HW: tuple[int, int]) -> Batches:
        if self._batches is None or self._batches.geometry.size_HW != size_HW:
            self._batches = None
            self._batches = Batches(self._device, self._tvl1, size_HW, self._budget_bytes)
        return self._batches
