"""TV-L1 coarse to fine over frames of one size: what is done, level by level and warp by warp.

The steps are those of `flowprep.flow.reference` with the rules "cuda"; the kernels do each pass
over pixels.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from flowprep.flow.base import TVL1Params
from flowprep.flow.cpu.layout import BLOCK_BYTES, Plane, State, Taps, n_blocks
from flowprep.flow.cpu.resample import Resizer
from flowprep.flow.cpu.simd import VECTOR_BYTES
from flowprep.flow.pairwise import diverged
from flowprep.flow.reference_steps import level_sizes_HW
from flowprep.records import F32, U8

WAVE_BYTES = 512 << 10  # the rows of a wave stay in the second-level cache
LONGEST_WAVE = 16

Size = tuple[int, int]


class Solver:
    """Steps and work space for frames of one size; for one thread at a time."""

    def __init__(self, size_HW: Size, params: TVL1Params, stop_rule: str, program: Any) -> None:
        self.size_HW = size_HW
        self._params, self._stop_rule, self._program = params, stop_rule, program
        sizes = level_sizes_HW(*size_HW, params.n_scales, params.scale_step)
        self._frames = [[Plane(*size) for size in sizes] for _ in range(2)]
        self._states = [State(*size) for size in sizes]
        self._taps = [Taps(*size) for size in sizes]
        self._shrink = [self._image_resizer(*pair) for pair in pairwise(sizes)]
        self._enlarge = [self._flow_resizer(*pair) for pair in pairwise(sizes)]

    def solve(self, gray_THW: U8, flow_T2HW: F32) -> list[np.ndarray]:
        """Flow of each pair of successive frames, uint8 [T, H, W] with T >= 1, into `flow_T2HW`.

        Returns the iterations of each, int [levels, warps]; row 0 is the full size. A frame's
        pyramid is made once, for the pair that it ends and the one that it starts.
        """
        self._load(gray_THW[0])
        return [self._solve_next(*pair) for pair in zip(gray_THW[1:], flow_T2HW, strict=True)]

    def _solve_next(self, frame: U8, flow_2HW: F32) -> np.ndarray:
        self._frames.reverse()
        self._load(frame)
        counts = [self._solve_level(n) for n in reversed(range(len(self._states)))]
        for name, out_HW in zip(("u", "v"), flow_2HW, strict=True):
            self._states[0].copy_field(name, out_HW)
        return np.array(counts[::-1])

    # --- frames ---

    def _load(self, frame: U8) -> None:
        """Make `frame` the second of the pair."""
        planes = self._frames[1]
        planes[0].image[...] = frame
        planes[0].repeat_edges()
        for shrink, (fine, coarse) in zip(self._shrink, pairwise(planes), strict=True):
            shrink(fine.grid, coarse.grid)
            coarse.repeat_edges()

    def _image_resizer(self, fine_HW: Size, coarse_HW: Size) -> Resizer:
        step = 1 / self._params.scale_step
        return Resizer(self._program, fine_HW, coarse_HW, (step, step), VECTOR_BYTES)

    def _flow_resizer(self, fine_HW: Size, coarse_HW: Size) -> Resizer:
        steps = [1 / (fine / coarse) for fine, coarse in zip(fine_HW, coarse_HW, strict=True)]
        return Resizer(self._program, coarse_HW, fine_HW, (steps[0], steps[1]), BLOCK_BYTES)

    # --- levels ---

    def _solve_level(self, level: int) -> list[int]:
        """All warps, p going from one to the next; returns the iterations of each."""
        is_coarsest = level + 1 == len(self._states)
        self._states[level].clear_from("u" if is_coarsest else "p11")
        if not is_coarsest:
            self._take_flow_from(level + 1)
        self._lay_out_taps(level)
        counts = []
        for _ in range(self._params.n_warps):
            self._linearise(level)
            counts.append(self._iterate(self._states[level]))
        return counts

    def _take_flow_from(self, coarse: int) -> None:
        fine = coarse - 1
        for name in ("u", "v"):
            source, out = (self._states[n].grid(name) for n in (coarse, fine))
            self._enlarge[fine](source, out, 1 / self._params.scale_step)

    def _lay_out_taps(self, level: int) -> None:
        plane, taps, state = self._frames[1][level], self._taps[level], self._states[level]
        self._program.taps(
            plane.grid.address,
            plane.grid.row_bytes,
            taps.grid.address,
            taps.grid.row_bytes,
            state.height,
            n_blocks(state.width),
        )
        taps.repeat_edges()

    def _linearise(self, level: int) -> None:
        state = self._states[level]
        grids = (state.origin, self._frames[0][level].grid, self._taps[level].grid)
        where = (number for grid in grids for number in (grid.address, grid.row_bytes))
        self._program.linearise(*where, state.height, state.width, n_blocks(state.width))

    def _iterate(self, state: State) -> int:
        """Iterate until the stopping rule is met; returns how often."""
        params = self._params
        limit = params.epsilon**2 * state.height * state.width
        n, until_check = 0, self._first_check(limit)
        while True:
            n_more = min(until_check, params.n_iterations - n)
            error = self._sweep(state, n_more)
            n += n_more
            if error <= limit or n == params.n_iterations:
                return n
            until_check = self._next_check(error, limit)

    def _first_check(self, limit: float) -> int:
        if self._stop_rule == "every":
            return 1
        return 2 if limit > 0 else self._params.n_iterations

    def _next_check(self, error: float, limit: float) -> int:
        """Iterations from a check to the next: OpenCV CUDA takes the error to fall by `limit` each.

        It looks at even counts only, and once `error`, less a `limit` per iteration, is under it.
        """
        if self._stop_rule == "every":
            return 1
        n_pairs = min(error / (2 * limit), self._params.n_iterations)
        return 2 * (math.floor(n_pairs) + 1)

    def _sweep(self, state: State, n_iterations: int) -> float:
        params, origin = self._params, state.origin
        error = self._program.sweep(
            origin.address,
            origin.row_bytes,
            state.height,
            state.width,
            n_blocks(state.width),
            n_iterations,
            max(2, min(LONGEST_WAVE, WAVE_BYTES // origin.row_bytes)),
            params.lambda_ * params.theta,
            params.theta,
            params.tau / params.theta,
        )
        if not math.isfinite(error):
            raise diverged(params)
        return error
