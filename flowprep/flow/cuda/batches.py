"""Batches of pairs: how many fit, how clips are cut into them, and one batch on the device."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from flowprep.errors import DeviceLost, FlowprepError
from flowprep.flow.base import TVL1Params
from flowprep.flow.cuda.device import Device
from flowprep.flow.cuda.layout import (
    CONTROL,
    DIVERGED,
    FLOAT32,
    Batch,
    Codes,
    Geometry,
    lay_out,
)
from flowprep.flow.pairwise import diverged
from flowprep.records import F64, U8

log = logging.getLogger(__name__)

BATCH_PX = 512 * 340 * 256  # of all pairs: enough for the largest devices
SLICE_NS = 500_000_000  # a launch lasts no longer, for the sake of screens and watchdogs
MAX_IDLE_SLICES = 3
GIB = 1 << 30


@dataclass(frozen=True)
class Run:
    """Successive frames of a clip, first <= frame <= last."""

    clip: int
    first: int
    last: int

    @property
    def n_pairs(self) -> int:
        return self.last - self.first


@dataclass(frozen=True)
class Solved:
    """A batch as it came back, pair by pair."""

    out: np.ndarray  # float32 [P, 2, H, W], or codes [P, 2H, W]
    counts_PLW: np.ndarray  # int32: iterations of each level and warp; level 0 is the full size
    stats_PB3: np.ndarray  # float64, per band: sum of |flow|, largest |flow|^2, pixels beyond bound

    @property
    def measured_P3(self) -> F64:
        """Of a whole pair: sum of |flow|, largest |flow|, pixels beyond the bound.

        Bands are added one after the other, so that a pair's sum has the same bits in any batch.
        """
        sums_BP, squares_BP, beyond_BP = self.stats_PB3.T
        return np.stack([sum(sums_BP), np.sqrt(squares_BP.max(axis=0)), sum(beyond_BP)], axis=1)


@dataclass(frozen=True)
class Capacity:
    """What one batch may hold."""

    n_pairs: int

    @property
    def n_frames(self) -> int:
        """A run has one frame more than pairs; batches of very short runs hold fewer pairs."""
        return self.n_pairs + self.n_pairs // 4 + 1

    def cut(self, clip_lengths: Iterable[tuple[int, int]]) -> Iterator[list[Run]]:
        """Batches of runs; `clip_lengths` are (clip, frames)."""
        runs: list[Run] = []
        for clip, n_frames in clip_lengths:
            first = 0
            while first < n_frames - 1:
                n_more = self._pairs_left(runs)
                if n_more == 0:
                    yield runs
                    runs = []
                    continue
                last = min(first + n_more, n_frames - 1)
                runs.append(Run(clip, first, last))
                first = last
        if runs:
            yield runs

    def _pairs_left(self, runs: Sequence[Run]) -> int:
        n_pairs = sum(run.n_pairs for run in runs)
        return max(0, min(self.n_pairs - n_pairs, self.n_frames - n_pairs - len(runs) - 1))


class Lane:
    """Solves one batch of one frame size at a time, in memory and on a stream of its own.

    The host may do other things between `start` and `finish`.
    """

    def __init__(
        self, device: Device, params: TVL1Params, size_HW: tuple[int, int], budget_bytes: int
    ) -> None:
        self._device, self._params = device, params
        self.geometry = Geometry.of(size_HW, params)
        self.capacity = _largest(self.geometry, budget_bytes)
        self._address = self._allocate()
        self._out = np.empty(0, np.uint8)
        self._batch: Batch | None = None
        self._codes = FLOAT32

    def _allocate(self) -> int:
        """Memory for the capacity, which is halved until the device has so much."""
        while True:
            n_bytes = _n_bytes(self.geometry, self.capacity)
            try:
                return self._device.allocate(n_bytes)
            except MemoryError as error:
                if self.capacity.n_pairs == 1:
                    raise _too_large(self.geometry, n_bytes, "is not free on the device") from error
                self.capacity = Capacity(self.capacity.n_pairs // 2)
                log.warning(
                    "the CUDA device has no %.1f GiB free: batches of %d pairs instead",
                    n_bytes / GIB,
                    self.capacity.n_pairs,
                )

    def start(self, clips: Sequence[U8], runs: Sequence[Run], codes: Codes) -> None:
        """Ask for the pairs of `runs`, within the capacity, one after the other."""
        lengths = [run.n_pairs + 1 for run in runs]
        self._codes = codes
        self._make_room(codes)
        self._batch = batch = lay_out(
            self.geometry,
            self._params,
            lengths,
            codes,
            self._address,
            self._device.n_workers,
            SLICE_NS,
        )
        self._send(clips, runs, batch)
        for level in range(len(self.geometry.levels)):
            self._device.launch("make_level", self._address, level)
        for kernel in ("make_taps", "begin", "solve"):
            self._device.launch(kernel, self._address)

    def _make_room(self, codes: Codes) -> None:
        """On the host, for a full batch: codes take a quarter or half of what float32 takes."""
        n_bytes = self.capacity.n_pairs * 2 * math.prod(self.geometry.size_HW) * codes.bytes
        if len(self._out) < n_bytes:
            self._out = self._device.host_memory(n_bytes)

    def _send(self, clips: Sequence[U8], runs: Sequence[Run], batch: Batch) -> None:
        device, at = self._device, batch.addresses["frames"]
        for run in runs:
            frames = clips[run.clip][run.first : run.last + 1]
            device.send(frames, at)
            at += frames.nbytes
        device.send(self.geometry.levels, batch.addresses["levels"])
        device.send(batch.first_frames, batch.addresses["first_frames"])
        device.send(batch.job, self._address)

    def finish(self) -> Solved:
        """What `start` asked for. `Solved.out` is there until the next `finish`."""
        batch = self._batch
        assert batch is not None
        self._bring_to_end(batch)
        self._device.launch("deliver", self._address)
        out = self._out[: batch.sizes["out"]]
        self._device.fetch(batch.addresses["out"], out)
        back = self._fetched(batch, "controls", "counts", "stats")
        self._batch = None
        return self._solved(out, back)

    def _bring_to_end(self, batch: Batch) -> None:
        """Launch again until all pairs are done."""
        before, n_idle = b"", 0
        while True:
            back = self._fetched(batch, "finished", "left", "controls")
            if back["finished"].view(np.int32)[0] == len(batch.first_frames):
                return
            now = back["left"].tobytes() + back["controls"].tobytes()
            n_idle = n_idle + 1 if now == before else 0
            if n_idle == MAX_IDLE_SLICES:
                raise DeviceLost(f"the CUDA kernels did nothing for {n_idle * SLICE_NS / 1e9:g} s")
            before = now
            self._device.launch("solve", self._address)

    def _fetched(self, batch: Batch, *names: str) -> dict[str, U8]:
        """The bytes of these sections, after all that was asked of the device."""
        back = {name: np.empty(batch.sizes[name], np.uint8) for name in names}
        for name, into in back.items():
            self._device.fetch(batch.addresses[name], into)
        self._device.wait()
        return back

    def _solved(self, out: U8, back: dict[str, U8]) -> Solved:
        if (back["controls"].view(CONTROL)["phase"] == DIVERGED).any():
            raise diverged(self._params)
        (height, width), levels = self.geometry.size_HW, self.geometry.levels
        is_flow = self._codes.bytes == FLOAT32.bytes
        shape = (-1, 2, height, width) if is_flow else (-1, 2 * height, width)
        return Solved(
            out.view(self._codes.dtype).reshape(shape),
            back["counts"].view(np.int32).reshape(-1, len(levels), self._params.n_warps),
            back["stats"].view(np.float64).reshape(-1, int(levels[0]["bands"]), 3),
        )


def lanes_within(params: TVL1Params, size_HW: tuple[int, int], budget_bytes: int, most: int) -> int:
    """So many lanes share the budget: fewer, when a share would not hold a pair of frames."""
    a_pair = _n_bytes(Geometry.of(size_HW, params), Capacity(1))
    return max(1, min(most, budget_bytes // a_pair))


def _largest(geometry: Geometry, budget_bytes: int) -> Capacity:
    """The largest batch within the budget, and no larger than a device can use."""
    height, width = geometry.size_HW
    n_pairs = max(1, BATCH_PX // (height * width))
    while n_pairs > 1 and _n_bytes(geometry, Capacity(n_pairs)) > budget_bytes:
        n_pairs = n_pairs * 7 // 8
    capacity = Capacity(n_pairs)
    if (n_bytes := _n_bytes(geometry, capacity)) > budget_bytes:
        raise _too_large(geometry, n_bytes, f"and engine cuda may take {budget_bytes / GIB:.2f}")
    return capacity


def _n_bytes(geometry: Geometry, capacity: Capacity) -> int:
    return geometry.bytes_for(capacity.n_frames, capacity.n_pairs)


def _too_large(geometry: Geometry, n_bytes: int, what: str) -> FlowprepError:
    height, width = geometry.size_HW
    return FlowprepError(
        f"one pair of {width}x{height} frames takes {n_bytes / GIB:.2f} GiB of GPU memory, {what}",
        "give --gpu-mem more, fewer --workers-per-gpu, a smaller --size, or --engine cpu",
    )
