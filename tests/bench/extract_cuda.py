"""What a whole extraction keeps of engine `cuda`, by codecs and by workers per GPU.

    python tests/bench/extract_cuda.py [--videos DIR] [--workers-per-gpu 2 4 8] [--copies 240]

Two things limit it, both measured in this run on the same video (340x256): the engine by itself,
in one process, and the cores, each of which takes `CPU ms` for all the other stages of a frame.
`of limit` compares the extraction with the smaller of the two. Its time is that of its shards, the
start of its workers included; `cores busy` is its CPU time over its time from start to end.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import efficiency
import machine
import numpy as np
import stages

from flowprep.flow.base import get_engine
from flowprep.flow.distinct import compute_to_store
from flowprep.quantize import make_quantizer

DEFAULT, FAST = stages.CODECS
BATCHES = 6  # of the engine alone, the first one not counted


def main() -> None:
    options = _options()
    machine.SHARED_VIDEOS = options.videos
    engine = get_engine(options.engine)
    engine_rate = alone(engine)
    cases = [(FAST, k) for k in options.workers_per_gpu] + [(DEFAULT, max(options.workers_per_gpu))]
    cpu_ms = {codecs: other_stages_ms(options.engine, codecs) for codecs in (FAST, DEFAULT)}
    rows = [row(options, engine_rate, cpu_ms[codecs], codecs, k) for codecs, k in cases]
    print(machine.markdown(rows))
    print(machine.save(f"extract_{options.engine}", rows, device=engine.build, **machine.gpu()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=Path, default=machine.SHARED_VIDEOS)
    parser.add_argument("--engine", default="cuda")
    parser.add_argument("--workers-per-gpu", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--copies", type=int, default=240)
    return parser.parse_args()


def alone(engine: Any) -> float:
    """Flows a second of batches of the video, from frames in memory to what is stored."""
    quantizer = make_quantizer("symmetric", 20)
    gray = np.concatenate([efficiency.gray_clip(i) for i in range(efficiency.N_CLIPS)])
    clips = [gray] * max(1, engine.batch_pairs(gray.shape[1:]) // (len(gray) - 1))
    seconds = []
    for _ in range(BATCHES):
        start = time.perf_counter()
        compute_to_store(engine, clips, quantizer)
        seconds.append(time.perf_counter() - start)
    return len(clips) * (len(gray) - 1) / float(np.median(seconds[1:]))


def other_stages_ms(engine: str, codecs: tuple[str, str]) -> float:
    """CPU of all stages but the flow, of a frame on one core."""
    measured = stages.measure(machine.SHARED_VIDEOS / efficiency.VIDEO, *codecs, engine=engine)
    return measured["all stages"] - measured["flow"]


def row(
    options: argparse.Namespace, engine_rate: float, cpu_ms: float, codecs: tuple[str, str], k: int
) -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0))
    chosen = ["--engine", options.engine, "--executor", "local", "--workers-per-gpu", str(k)]
    chosen += ["--rgb-codec", codecs[0], "--flow-codec", codecs[1]]
    with tempfile.TemporaryDirectory() as folder:
        videos = map(str, efficiency.copies_of_video(Path(folder), options.copies))
        spent_s, start = children_cpu_s(), time.perf_counter()
        run = efficiency.extract_run(Path(folder), [f"{video},," for video in videos], chosen)
        seconds, spent_s = time.perf_counter() - start, children_cpu_s() - spent_s
    limit = min(engine_rate, 1000 * cores / cpu_ms)
    return {
        "codecs": ", ".join(codecs),
        "workers per GPU": k,
        "flows": run["flows"],
        "flows/s": round(run["flows_per_s"], 1),
        "engine alone": round(engine_rate, 1),
        "CPU ms": round(cpu_ms, 3),
        "cores": cores,
        "of limit": round(run["flows_per_s"] / limit, 3),
        "cores busy": round(spent_s / seconds, 2),
        "bottleneck": run["bottleneck"],
    }


def children_cpu_s() -> float:
    """CPU seconds of all child processes that have ended, theirs included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
