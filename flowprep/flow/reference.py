"""TV-L1 in NumPy float64, written to be read: what every other engine is compared with.

There are sets of rules, because OpenCV's implementations differ and each is a reference:

- "cuda": cv2.cuda.OpticalFlowDual_TVL1 (opencv_contrib modules/cudaoptflow/src/tvl1flow.cpp and
  src/cuda/tvl1flow.cu, the same from 4.13 to 5.0). The canon of flowprep.
- "cpu": cv2.optflow.DualTVL1OpticalFlow with medianFiltering=1 and outerIterations=1
  (modules/optflow/src/tvl1flow.cpp), on OpenCV 4.
- "cpu5": the same on OpenCV 5, whose cv::remap no longer rounds positions to 1/32 px.

They differ in where a resize samples, in how frame 1 is warped, and in when the stopping rule
looks at the error. `RULES` holds those three; everything else, in reference_steps, is shared. The
method is that of Zach, Pock and Bischof, "A duality based approach for realtime TV-L1 optical
flow" (2007).

Pyramid levels are numbered from 0, the full size; the coarsest is computed first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from flowprep.errors import FlowprepError
from flowprep.flow.base import TVL1Params
from flowprep.flow.pairwise import PairEngine, check_threads, tvl1_params
from flowprep.flow.reference_steps import (
    DataTerm,
    Rules,
    central_gradient,
    centre_positions,
    clamped_taps,
    corner_positions,
    divergence,
    linearise,
    pyramid,
    threshold,
    update_dual,
    upscale_flow,
    warp_back,
    zero_border_table_taps,
    zero_border_taps,
)
from flowprep.records import F64, U8


@dataclass(frozen=True, kw_only=True)
class WarpTrace:
    """What the solver did in one warp: `checks` holds (iterations done before it, error)."""

    level: int
    warp: int
    n_iterations: int
    checks: tuple[tuple[int, float], ...]


@dataclass(frozen=True, kw_only=True)
class Solution:
    flow_2HW: F64
    trace: tuple[WarpTrace, ...]  # coarsest level first

    @property
    def counts_LW(self) -> np.ndarray:
        """int [levels, warps]: iterations; row 0 is the full size."""
        n_levels, n_warps = self.trace[0].level + 1, self.trace[-1].warp + 1
        coarsest_first = np.array([done.n_iterations for done in self.trace])
        return coarsest_first.reshape(n_levels, n_warps)[::-1]


def check_on_schedule(n: int, previous: float, limit: float) -> bool:
    """CUDA (PR #1345, 2013): only odd n, and only once `previous` has been worn down."""
    return n % 2 == 1 and previous < limit


def check_always(n: int, previous: float, limit: float) -> bool:
    return True


Checks = tuple[tuple[int, float], ...]


def iterate(
    step: Callable[[], float],
    limit: float,
    cap: int,
    check_is_due: Callable[[int, float, float], bool],
) -> tuple[int, Checks]:
    """Call `step` until a due check finds its error at or under `limit`, at most `cap` times.

    Each iteration without a check lowers `previous` by `limit`: the error is taken to decline.
    Returns the number of steps and the checks.
    """
    checks, previous = [], 0.0
    for n in range(cap):
        error = step()
        if check_is_due(n, previous, limit):
            checks.append((n, error))
            if error <= limit:
                return n + 1, tuple(checks)
            previous = error
        else:
            previous -= limit
    return cap, tuple(checks)


def solve_level(
    frames: tuple[F64, F64], flow_2HW: F64, params: TVL1Params, rules: Rules
) -> tuple[F64, list[tuple[int, Checks]]]:
    """All warps of one level; the dual variable p starts at 0 and survives from warp to warp."""
    l_t, theta, taut = (
        float(np.float32(v))
        for v in (params.lambda_ * params.theta, params.theta, params.tau / params.theta)
    )
    images = [frames[1], *central_gradient(frames[1])]
    limit = params.epsilon**2 * frames[0].size
    p = np.zeros((2, *flow_2HW.shape))
    done = []
    for _ in range(params.n_warps):
        data = linearise(frames[0], warp_back(images, flow_2HW, rules), flow_2HW)

        def step(data: DataTerm = data) -> float:
            nonlocal flow_2HW, p
            change = threshold(data, flow_2HW, l_t) + theta * divergence(p)
            flow_2HW = flow_2HW + change
            p = update_dual(p, flow_2HW, taut)
            return float((change**2).sum())

        done.append(iterate(step, limit, params.n_iterations, rules.check_is_due))
    return flow_2HW, done


def solve(frame_0: U8, frame_1: U8, params: TVL1Params, rules: Rules) -> Solution:
    """Flow from frame_0 to frame_1, uint8 [H, W] each, coarse to fine."""
    levels = list(zip(*(pyramid(f, params, rules) for f in (frame_0, frame_1)), strict=True))
    flow, trace = np.zeros((2, *levels[-1][0].shape)), []
    for level in reversed(range(len(levels))):
        flow, done = solve_level(levels[level], flow, params, rules)
        trace += [
            WarpTrace(level=level, warp=warp, n_iterations=n, checks=checks)
            for warp, (n, checks) in enumerate(done)
        ]
        if level:
            flow = upscale_flow(flow, levels[level - 1][0].shape, params, rules)
    return Solution(flow_2HW=flow, trace=tuple(trace))


RULES = {
    "cuda": Rules(
        resize_positions=corner_positions,
        cubic_taps=clamped_taps,
        check_is_due=check_on_schedule,
    ),
    "cpu": Rules(
        resize_positions=centre_positions,
        cubic_taps=zero_border_table_taps,
        check_is_due=check_always,
    ),
    "cpu5": Rules(
        resize_positions=centre_positions,
        cubic_taps=zero_border_taps,
        check_is_due=check_always,
    ),
}


class Reference(PairEngine):
    """The oracle as an engine. `threads` is accepted and changes nothing: NumPy runs one pair."""

    name = "reference"

    def __init__(
        self, *, device: int | None = None, threads: int = 1, rules: str = "cuda", **params: Any
    ) -> None:
        if rules not in RULES:
            raise FlowprepError(
                f"unknown reference rules {rules!r}", f"choose one of: {', '.join(RULES)}"
            )
        check_threads(threads)
        self._rules = RULES[rules]
        self._tvl1 = tvl1_params(params)
        self.params = {**self._tvl1.as_dict(), "rules": rules, "median_filtering": 1}
        self.build = f"numpy {np.__version__} float64"

    def solve(self, frame_0: U8, frame_1: U8) -> Solution:
        """Flow in float64, and what the solver did in every warp."""
        return solve(frame_0, frame_1, self._tvl1, self._rules)

    def _flows(self, gray_THW: U8) -> Iterator[np.ndarray]:
        for frame_0, frame_1 in pairwise(gray_THW):
            yield self.solve(frame_0, frame_1).flow_2HW
