"""The engine `cpu`, and the compiled program behind it."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from queue import SimpleQueue
from typing import Any

import numpy as np

from flowprep.errors import FlowprepError
from flowprep.flow.cpu.jit import Program, Target, compiler
from flowprep.flow.cpu.resample import resample
from flowprep.flow.cpu.solver import Solver
from flowprep.flow.cpu.sweep import sweep
from flowprep.flow.cpu.warp import linearise, taps
from flowprep.flow.pairwise import PairEngine, check_gray, check_threads, tvl1_params
from flowprep.processes import machine_bytes
from flowprep.records import F32, U8

STOP_RULES = ("cuda", "every")
WORK_BYTES_PER_PX = 165
MOST_WORK_BYTES = min(8 << 30, machine_bytes() // 4)
"""A worker may hold half of the machine's memory, if nobody says otherwise."""
"""Large frames get fewer threads: the work space of all together stays below this."""
MOST_PAIRS_PER_TURN = 4
TURNS_PER_THREAD = 4
"""Threads take turns of a few pairs. Longer ones make fewer pyramids twice, shorter ones end
together."""


@dataclass(frozen=True)
class Solution:
    flow_2HW: F32
    counts_LW: np.ndarray  # int [levels, warps]: iterations; row 0 is the full size


class Cpu(PairEngine):
    """TV-L1 by OpenCV CUDA's rules in float32; `threads` work on different pairs.

    `stop_rule` says when the iterations of a warp end: "cuda" (the canon: OpenCV CUDA's schedule
    of checks) or "every" (a check after each, as OpenCV's CPU code does: fewer iterations).
    The bits of a flow do not depend on the processor.
    """

    name = "cpu"

    def __init__(
        self, *, device: int | None = None, threads: int = 1, stop_rule: str = "cuda", **params: Any
    ) -> None:
        if stop_rule not in STOP_RULES:
            raise FlowprepError(
                f"stop_rule = {stop_rule!r} is not possible",
                f"choose one of: {', '.join(STOP_RULES)}",
            )
        self._tvl1, self._stop_rule = tvl1_params(params), stop_rule
        self._n_threads = check_threads(threads)
        self._program = program(Target.host())
        self._solvers: list[Solver] = []
        self.params = {**self._tvl1.as_dict(), "rules": "cuda", "stop_rule": stop_rule}
        self.build = f"float32, {compiler()}"

    def compute(self, gray_THW: U8) -> F32:
        check_gray(gray_THW)
        n_frames, height, width = gray_THW.shape
        flow_T2HW = np.empty((n_frames - 1, 2, height, width), np.float32)
        solvers = self._solvers_for((height, width))
        if len(solvers) == 1:
            solvers[0].solve(gray_THW, flow_T2HW)
        else:
            _share_out(flow_T2HW, solvers, gray_THW)
        return flow_T2HW

    def solve(self, frame_0: U8, frame_1: U8) -> Solution:
        """The flow of one pair, and the iterations it took."""
        gray_THW = np.stack([frame_0, frame_1])
        check_gray(gray_THW)
        flow_T2HW = np.empty((1, 2, *frame_0.shape), np.float32)
        (counts_LW,) = self._solvers_for(frame_0.shape)[0].solve(gray_THW, flow_T2HW)
        return Solution(flow_T2HW[0], counts_LW)

    def _solvers_for(self, size_HW: tuple[int, int]) -> list[Solver]:
        """One per thread; their work space is made once per frame size."""
        if not self._solvers or self._solvers[0].size_HW != size_HW:
            self._solvers = []  # the old memory goes first
            most = max(1, MOST_WORK_BYTES // (WORK_BYTES_PER_PX * math.prod(size_HW)))
            self._solvers = [
                Solver(size_HW, self._tvl1, self._stop_rule, self._program)
                for _ in range(min(self._n_threads, most))
            ]
        return self._solvers


def _share_out(flow_T2HW: F32, solvers: list[Solver], gray_THW: U8) -> None:
    """A thread per solver; each takes turns of a few pairs until none is left."""
    n_pairs = len(flow_T2HW)
    per_turn = n_pairs // (TURNS_PER_THREAD * len(solvers))
    per_turn = max(1, min(MOST_PAIRS_PER_TURN, per_turn))
    idle: SimpleQueue[Solver] = SimpleQueue()
    for solver in solvers:
        idle.put(solver)

    def take_turn(start: int) -> None:
        stop, solver = min(start + per_turn, n_pairs), idle.get()
        try:
            solver.solve(gray_THW[start : stop + 1], flow_T2HW[start:stop])
        finally:
            idle.put(solver)

    with ThreadPoolExecutor(len(solvers)) as pool:
        list(pool.map(take_turn, range(0, n_pairs, per_turn)))


@cache
def program(target: Target) -> Program:
    """The kernels, compiled once per process. Raises FlowprepError where FMA is missing."""
    if not target.has_fma:
        raise FlowprepError(
            f"engine 'cpu' needs a processor with fused multiply-add (2013 or newer); "
            f"this one is {target.cpu!r} without it",
            "give --engine opencv-cpu, or let a virtual machine pass on the host's features",
        )
    return Program([resample(), taps(), linearise(), sweep()], target)
