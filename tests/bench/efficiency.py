"""How much of an engine's own speed a whole extraction keeps, on all cores, and how it scales.

    python tests/bench/efficiency.py [--engine cpu] [--executor local] [--copies 10]

The engine alone computes the pairs of the same clips from frames in memory, first in one process,
then in a process per core, before and after the extraction; the faster run of each counts. The
extraction's time is from the first to the last moment of its shards, the start of its workers
included; it works on `copies` of the video, so that a fast engine has something to do.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import machine
import numpy as np

from flowprep.decode.base import get_decoder
from flowprep.decode.geometry import resize, target_size, to_gray
from flowprep.flow.base import get_engine

VIDEO = "arm_wrestling.mp4"
CLIP_S = 0.5
N_CLIPS = 20
FPS = 25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="cpu")
    parser.add_argument("--executor", default="local")
    parser.add_argument("--copies", type=int, default=10)
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    single, alone = [engine_rate(options.engine, 1)], [engine_rate(options.engine, cores)]
    with tempfile.TemporaryDirectory() as folder:
        run = extract_rate(Path(folder), options.engine, options.executor, options.copies)
    single.append(engine_rate(options.engine, 1))
    alone.append(engine_rate(options.engine, cores))
    own = max(alone)
    row = {
        "engine": options.engine,
        "executor": options.executor,
        "cores": cores,
        "one process, flows/s": f"{single[0]:.3f}, {single[1]:.3f}",
        "a process per core": f"{alone[0]:.3f}, {alone[1]:.3f}",
        "all cores / one": round(own / max(single), 3),
        "extract, flows/s": run["flows_per_s"],
        "flows": run["flows"],
        "extract / faster engine run": round(run["flows_per_s"] / own, 3),
    }
    print(machine.markdown([row]))
    print(machine.save(f"efficiency_{options.engine}_{options.executor}", [row]))


def extract_rate(folder: Path, engine: str, executor: str, copies: int) -> dict[str, Any]:
    """The run's part of the summary that `extract --log-json` ends with."""
    videos = [folder / f"{number}.mp4" for number in range(copies)]
    for video in videos:
        shutil.copy(machine.SHARED_VIDEOS / VIDEO, video)
    rows = [f"{v},{i * CLIP_S},{(i + 1) * CLIP_S}" for v in videos for i in range(N_CLIPS)]
    (folder / "list.csv").write_text("path,start_s,end_s\n" + "\n".join(rows) + "\n")
    command = [sys.executable, "-m", "flowprep", "extract", "--src", str(folder / "list.csv")]
    command += ["--out", str(folder / "out"), "--engine", engine, "--executor", executor]
    command += ["--fps", "native"]
    done = subprocess.run([*command, "--log-json"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])["run"]


def engine_rate(engine: str, cores: int) -> float:
    """Flows a second of the engine alone, a process per core, on the same frames."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(cores + 1)
    counts = context.Queue()
    processes = [
        context.Process(target=_compute, args=(engine, part, cores, barrier, counts))
        for part in range(cores)
    ]
    for process in processes:
        process.start()
    barrier.wait()
    started = time.perf_counter()
    flows = sum(counts.get() for _ in processes)
    seconds = time.perf_counter() - started
    for process in processes:
        process.join()
    return flows / seconds


def _compute(engine: str, part: int, cores: int, barrier: Any, counts: Any) -> None:
    cv2.setNumThreads(1)
    clips = [gray_clip(i) for i in range(part, N_CLIPS, cores)]
    instance = get_engine(engine)
    barrier.wait()
    counts.put(sum(len(instance.compute(clip)) for clip in clips))


def gray_clip(number: int) -> np.ndarray:
    """The frames of one row of the list, as extract makes them."""
    path = str(machine.SHARED_VIDEOS / VIDEO)
    decoder = get_decoder()
    media = decoder.probe(path)
    since_start = media.pts_s - media.pts_s[0]
    inside = (since_start >= number * CLIP_S - 1e-6) & (since_start < (number + 1) * CLIP_S - 1e-6)
    size = target_size(media.width, media.height, 256, None)
    frames = decoder.frames(path, media, np.flatnonzero(inside))
    return np.stack([to_gray(resize(frame, *size, "area")) for frame in frames])


if __name__ == "__main__":
    main()
