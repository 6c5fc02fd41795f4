"""Speed of engine `cpu` on real pairs, per core, beside OpenCV and scikit-image in the same run.

    python tests/bench/flow.py [--size native] [--pairs 10]

Each pair of tests/bench/flow_pairs.json is computed by every engine in turn, all on one thread, in
`ROUNDS` rounds (scikit-image in one); an engine's time for a pair is its best round. `cpu` has its
work space and code already, OpenCV makes its own within the call. Ratios are per pair, and the
table gives their median. A pixel-iteration is one iteration of one pixel of one pyramid level.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2
import machine
import numpy as np
from flow_pairs import SIZES, Pair, frames, load_list
from skimage.registration import optical_flow_tvl1

from flowprep.flow.base import get_engine
from flowprep.flow.cpu.jit import Program
from flowprep.flow.cpu.layout import aligned_zeros
from flowprep.flow.cpu.simd import F32, I64, LANES, PTR, VECTOR_BYTES, Function, Variable
from flowprep.flow.reference_steps import level_sizes_HW

ROUNDS = 2
PER_BLOCK = {"fma": 24, "sqrt": 2, "div": 1}
"""What the sweep does to 16 pixels on the ports of multiplication; each kind's own time is probed.

Two ports multiply, and roots and divisions keep one of them busy, so no less than
(fma + (sqrt + div) / 2) is possible; additions have ports of their own.
"""
OWN = {"cpu": {}, "cpu every": {"stop_rule": "every"}}
PEERS = ("opencv-cpu", "skimage")


class Timed:
    """The engine's kernels, with the time spent in each."""

    def __init__(self, program: Any) -> None:
        self._program = program
        self.seconds: dict[str, float] = {}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        kernel = getattr(self._program, name)

        def call(*args: Any) -> Any:
            start = time.perf_counter()
            result = kernel(*args)
            spent = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + spent
            return result

        return call


@dataclass
class Own:
    """Engine `cpu` under one stop rule."""

    params: dict[str, Any]
    kernels: Timed = field(init=False)

    def __post_init__(self) -> None:
        self.engine = get_engine("cpu", **self.params)
        self.kernels = Timed(self.engine._program)
        self.engine._program = self.kernels

    def measure(self, gray: np.ndarray) -> dict[str, Any]:
        self.engine.solve(*gray)  # work space of this size is made
        self.kernels.seconds.clear()
        start = time.perf_counter()
        solution = self.engine.solve(*gray)
        seconds = time.perf_counter() - start
        n = pixel_iterations(gray.shape[1:], solution.counts_LW)
        return {
            "s": seconds,
            "mpxit": n / 1e6,
            "sweep_ns": 1e9 * self.kernels.seconds["sweep"] / n,
            "warp_ms": 1e3 * sum(self.kernels.seconds[k] for k in ("linearise", "taps")),
            "rest_ms": 1e3 * (seconds - sum(self.kernels.seconds.values())),
        }


def pixel_iterations(size_HW: tuple[int, ...], counts_LW: np.ndarray) -> int:
    sizes = level_sizes_HW(*size_HW, n_scales=len(counts_LW), scale_step=0.8)
    return sum(h * w * int(n.sum()) for (h, w), n in zip(sizes, counts_LW, strict=True))


def port_limit_ns() -> float:
    """ns per pixel-iteration that the ports of this core allow, from probes of their speed."""
    ns = {kind: _probe_ns(kind) for kind in PER_BLOCK}
    per_block = {kind: n * ns[kind] for kind, n in PER_BLOCK.items()}
    return (per_block["fma"] + (per_block["sqrt"] + per_block["div"]) / 2) / LANES


def _probe_ns(kind: str, rounds: int = 2_000_000, chains: int = 8) -> float:
    """Time of one vector operation among independent ones."""
    f = Function("probe", {"n": I64, "out": PTR})
    half = f.splat(f.convert("sitofp", f["n"], F32)) / (2.0 * rounds)  # unknown to LLVM
    factor = half * f.vector([1 + lane / LANES for lane in range(LANES)])  # no lane like another
    values = [Variable(f, factor * (1.0 + 0.1 * n)) for n in range(chains)]
    step = {
        "fma": lambda v: f.fma(v, factor, factor),
        "sqrt": lambda v: f.sqrt(v + factor),
        "div": lambda v: factor / (v + factor),
    }[kind]
    with f.loop(f["n"]):
        for value in values:
            value.value = step(value.value)
    for number, value in enumerate(values):  # LLVM drops a chain whose end nobody can see
        f.store(value.value, f["out"] + number * VECTOR_BYTES)
    f.give_back()
    out, program = aligned_zeros(chains, LANES), Program([f])
    best = min(seconds(lambda: program.probe(rounds, out.ctypes.data)) for _ in range(7))
    return 1e9 * best / rounds / chains


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure_pair(pair: Pair, gray: np.ndarray, own: dict[str, Own], peer: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"video": pair.video, "index": pair.index, "median_px": pair.median_px}
    row["height"], row["width"] = gray.shape[1:]
    for _ in range(ROUNDS):
        for name, engine in own.items():
            keep_best(row, name, engine.measure(gray))
        keep_best(row, "opencv-cpu", {"s": seconds(lambda: peer.compute(gray))})
    keep_best(row, "skimage", {"s": seconds(lambda: optical_flow_tvl1(*gray))})
    for name in OWN:
        row[f"{name}: opencv ratio"] = row["opencv-cpu"]["s"] / row[name]["s"]
        row[f"{name}: skimage ratio"] = row["skimage"]["s"] / row[name]["s"]
    return row


def keep_best(row: dict[str, Any], name: str, measured: dict[str, Any]) -> None:
    if name not in row or measured["s"] < row[name]["s"]:
        row[name] = measured


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    table = [_summary_of_own(rows, name) for name in OWN]
    return table + [{**dict.fromkeys(table[0], ""), **_summary_of_peer(rows, p)} for p in PEERS]


def _summary_of_own(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    def middle(key: str) -> float:
        return float(np.median([row[name][key] for row in rows]))

    ratios = [row[f"{name}: opencv ratio"] for row in rows]
    return {
        **_summary_of_peer(rows, name),
        "x OpenCV": f"{np.median(ratios):.1f}",
        "least": f"{min(ratios):.1f}",
        "x skimage": f"{np.median([row[f'{name}: skimage ratio'] for row in rows]):.1f}",
        "M pixel-iterations": f"{middle('mpxit'):.1f}",
        "ns each": f"{middle('sweep_ns'):.3f}",
        "warps ms": f"{middle('warp_ms'):.2f}",
        "rest ms": f"{middle('rest_ms'):.2f}",
    }


def _summary_of_peer(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return {
        "engine": name,
        "ms per pair": f"{1e3 * np.median([row[name]['s'] for row in rows]):.1f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="340x256")
    parser.add_argument("--pairs", type=int, help="only so many, spread over the list")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    pairs = load_list()[:: max(1, len(load_list()) // given.pairs) if given.pairs else 1]
    own = {name: Own(params) for name, params in OWN.items()}
    peer = get_engine("opencv-cpu")
    rows = [measure_pair(pair, frames(pair, SIZES[given.size]), own, peer) for pair in pairs]
    tables = {}
    for kind, moves in (("moving", True), ("near-static", False)):
        chosen = [row for row, pair in zip(rows, pairs, strict=True) if pair.moves == moves]
        tables[kind] = summary(chosen)
        print(f"\n{len(chosen)} pairs, {kind}, {given.size}\n{machine.markdown(tables[kind])}")
    limit = port_limit_ns()
    print(f"\nports of this core: {limit:.3f} ns per pixel-iteration at best")
    if not given.pairs:
        found = {"port_limit_ns": limit, "summary": tables, "pairs": rows}
        print(machine.save(f"flow_speed_{given.size}", found))


if __name__ == "__main__":
    main()
