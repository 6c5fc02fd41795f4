"""The whole experiment in one command; run again, it goes on.

python -m pipelines.motionbench --scale small                  # two CPU cores, hours
python -m pipelines.motionbench --device cuda --budget 25m     # a GPU, in pieces of 25 minutes
python -m pipelines.motionbench --scale small --ways           # and ways to a better student
python -m pipelines.motionbench --scale small --until gate     # videos, shards, and the gate
"""

from __future__ import annotations

import math
import os
import random
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

from flowprep.errors import FlowprepError
from pipelines.motionbench.bench import Bench
from pipelines.motionbench.dataset import all_videos, write_videos
from pipelines.motionbench.page import write_page
from pipelines.motionbench.plan import plan, tasks, ways
from pipelines.motionbench.runner import run_jobs, write_pairs
from pipelines.motionbench.shards import check_flow, extract, require_flow
from train.common import Stop, pick_device, run_main, tell
from train.config import parse

UNITS_S = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Render videos of known motion, extract, train every arm, judge, probe, and write the page."""

    scale: Literal["auto", "tiny", "small", "full"] = "auto"  # auto = full on cuda, small on a CPU
    out: str = "motionbench"  # folder of the experiment; run it again and it goes on
    budget: str = ""  # stop after so long, as 90s, 25m, 2h; "" = when all is done
    until: Literal["gate", "page"] = "page"  # gate = only videos, shards, and are they right
    ways: bool = False  # then train what may bring D3D to two streams: longer, other weights, ...
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto = cuda where there is one
    engine: str = "auto"  # of flowprep extract
    jobs: int = 0  # networks that are trained at once; 0 = one a core, one on cuda


class Stopped(BaseException):
    """The budget is spent, or SIGTERM came."""


def main() -> Stop:
    config = parse(BenchConfig, "python -m pipelines.motionbench")
    limit_s = budget_s(config.budget)
    device = pick_device(config.device).type
    scale = config.scale if config.scale != "auto" else "full" if device == "cuda" else "small"
    bench = Bench(scale, Path(config.out), device, config.engine)
    tell(f"scale {scale} on {device}: {bench.out}")
    bench.begin()
    stop: Stop = "done"
    try:
        with stops_after(limit_s):
            make_shards(bench)
            if config.until == "page":
                jobs = plan(bench) + (ways(bench) if config.ways else [])
                run_jobs(bench, jobs, at_once(config.jobs, device))
    except (Stopped, KeyboardInterrupt):
        stop = "interrupted"
    if config.until == "page" and bench.has("gate"):
        write_pairs(bench, tasks(bench))
        tell(f"page: {write_page(bench.results, bench.out / 'page')}")
    return stop


def make_shards(bench: Bench) -> None:
    """Videos, shards, tables of labels, and the gate. Raises FlowprepError where it is shut."""
    for task in tasks(bench):
        task.write(bench.scale, bench.out / "labels")
    if not bench.has("gate"):
        tell(f"{write_videos(bench.scale, bench.videos):,} videos rendered")
        extract(bench.videos, bench.shards, bench.engine)
        videos = all_videos(bench.scale)
        some = random.Random(0).sample(videos, min(len(videos), bench.scale.gate_clips))
        found = check_flow(bench.scale, bench.shards, some)
        require_flow(found)
        bench.write("gate", found)
    medians = bench.read("gate")["median_epe_px"]
    told = ", ".join(f"{name} {px:.3f}" for name, px in medians.items())
    tell(f"gate: median error of the flow in the shards, px: {told}")


def at_once(jobs: int, device: str) -> int:
    """How many networks are trained at the same time."""
    return jobs or (1 if device == "cuda" else len(os.sched_getaffinity(0)))


def budget_s(text: str) -> float:
    """Seconds. Raises FlowprepError for what is no duration."""
    if not text:
        return math.inf
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match:
        raise FlowprepError(f"--budget {text} is no duration", "write it as 90s, 25m or 2h")
    return float(match[1]) * UNITS_S[match[2]]


@contextmanager
def stops_after(limit_s: float) -> Iterator[None]:
    """Raise Stopped inside when the time is up, or SIGTERM comes."""
    before = signal.signal(signal.SIGTERM, _stop)
    timer = threading.Timer(min(limit_s, threading.TIMEOUT_MAX), _ask_to_stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped


def _ask_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    run_main(main)
