"""The engine `cuda`."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, groupby
from typing import Any

import numpy as np

from flowprep.errors import FlowprepError
from flowprep.flow.cuda.batches import Capacity, Lane, Run, Solved, lanes_within
from flowprep.flow.cuda.device import CupyDevice, Device
from flowprep.flow.cuda.layout import FLOAT32, Codes
from flowprep.flow.pairwise import check_gray, check_threads, tvl1_params
from flowprep.quantize import Quantizer
from flowprep.records import F32, F64, U8, CodedFlow

log = logging.getLogger(__name__)

NUMERICS = ("fast", "exact")
MEMORY_SHARE = 0.8  # of the device, at most, by all of its workers together
N_LANES = 2  # batches in flight: one is on the device while the host reads the other


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
        self._copiers = ThreadPoolExecutor(check_threads(threads))
        self._devices = [open_device(device or 0, numerics == "exact") for _ in range(N_LANES)]
        limit = gpu_bytes or int(MEMORY_SHARE * self._devices[0].total_bytes)
        self._budget_bytes = int(gpu_share * limit)
        self._lanes: list[Lane] = []
        self.params = {**self._tvl1.as_dict(), "rules": "cuda", "numerics": numerics}
        self.build = f"float32, {self._devices[0].build}"

    def compute(self, gray_THW: U8) -> F32:
        return self.compute_batch([gray_THW])[0]

    def compute_batch(self, clips: Sequence[U8]) -> list[F32]:
        for gray_THW in clips:
            check_gray(gray_THW)
        flows = [np.empty((len(clip) - 1, 2, *clip.shape[1:]), np.float32) for clip in clips]
        for runs, solved in self.solve(clips):
            self._put(runs, flows, solved.out)
        return flows

    def compute_codes_batch(self, clips: Sequence[U8], quantizer: Quantizer) -> list[CodedFlow]:
        for gray_THW in clips:
            check_gray(gray_THW)
        shapes = [(len(clip) - 1, 2 * clip.shape[1], clip.shape[2]) for clip in clips]
        codes = [np.empty(shape, quantizer.dtype) for shape in shapes]
        measured = [np.empty((n_pairs, 3)) for n_pairs, _, _ in shapes]
        for runs, solved in self.solve(clips, Codes.of(quantizer)):
            self._put(runs, codes, solved.out)
            self._put(runs, measured, solved.measured_P3)
        return [_coded(*of_clip) for of_clip in zip(codes, measured, strict=True)]

    def _put(self, runs: Sequence[Run], clips: Sequence[np.ndarray], batch: np.ndarray) -> None:
        """What a batch holds, pair by pair, to where it belongs in each clip."""
        parts = [clips[run.clip][run.first : run.last] for run in runs]
        starts = np.cumsum([run.n_pairs for run in runs])
        list(self._copiers.map(_copy, parts, np.split(batch, starts[:-1])))

    def batch_pairs(self, size_HW: tuple[int, int]) -> int:
        return sum(lane.capacity.n_pairs for lane in self._lanes_for(size_HW))

    def solve(
        self, clips: Sequence[U8], codes: Codes = FLOAT32
    ) -> Iterator[tuple[list[Run], Solved]]:
        """Batch by batch, the runs of successive frames that it holds and what came of them.

        A batch is there until the next but one is asked for.
        """
        for size_HW, group in groupby(range(len(clips)), lambda i: clips[i].shape[1:]):
            lanes, lengths = self._lanes_for(size_HW), [(i, len(clips[i])) for i in group]
            started: deque[tuple[list[Run], Lane]] = deque()
            for runs, lane in zip(_capacity(lanes).cut(lengths), cycle(lanes), strict=False):
                if len(started) == len(lanes):
                    yield _finished(started)
                lane.start(clips, runs, codes)
                started.append((runs, lane))
            while started:
                yield _finished(started)

    def _lanes_for(self, size_HW: tuple[int, int]) -> list[Lane]:
        if not self._lanes or self._lanes[0].geometry.size_HW != size_HW:
            self._lanes = []
            self._open_lanes(size_HW)
        return self._lanes

    def _open_lanes(self, size_HW: tuple[int, int]) -> None:
        n_lanes = lanes_within(self._tvl1, size_HW, self._budget_bytes, N_LANES)
        for device in self._devices[:n_lanes]:
            try:
                lane = Lane(device, self._tvl1, size_HW, self._budget_bytes // n_lanes)
            except FlowprepError as error:
                if not self._lanes:
                    raise
                log.warning("one batch at a time: %s", error.message)
            else:
                self._lanes.append(lane)


def _capacity(lanes: Sequence[Lane]) -> Capacity:
    return min((lane.capacity for lane in lanes), key=lambda capacity: capacity.n_pairs)


def _finished(started: deque[tuple[list[Run], Lane]]) -> tuple[list[Run], Solved]:
    runs, lane = started.popleft()
    return runs, lane.finish()


def _coded(codes: np.ndarray, measured_P3: F64) -> CodedFlow:
    sum_px, max_px, n_beyond = measured_P3.T
    return CodedFlow(codes, sum_px, max_px, n_beyond.astype(np.int64))


def _copy(part: np.ndarray, solved: np.ndarray) -> None:
    part[...] = solved
