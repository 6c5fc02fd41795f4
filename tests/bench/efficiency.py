"""How much of an engine's own speed a whole extraction keeps, on all cores, and how it scales.

    python tests/bench/efficiency.py [--engine cpu] [--executor local] [--rounds 7] [--copies 8]

The engine alone computes pairs of the same video from frames in memory, in turns in one process
and in one process per core, each on the same pairs; medians over the rounds count. The
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
N_CLIPS = 20  # all of the video


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="cpu")
    parser.add_argument("--executor", default="local")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--copies", type=int, default=8)
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    one, every = engine_rates(options.engine, cores, options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        chosen = ["--engine", options.engine, "--executor", options.executor]
        run = extract_run(Path(folder), half_seconds(Path(folder), options.copies), chosen)
    row = {
        "engine": options.engine,
        "executor": options.executor,
        "cores": cores,
        "one process, flows/s": round(float(np.median(one)), 2),
        "a process per core": round(float(np.median(every)), 2),
        "all cores / one": round(float(np.median(np.divide(every, one))), 3),
        "extract, flows/s": run["flows_per_s"],
        "flows": run["flows"],
        "extract / engine": round(run["flows_per_s"] / float(np.median(every)), 3),
    }
    print(machine.markdown([row]))
    print(machine.save(f"efficiency_{options.engine}_{options.executor}", [row]))


def half_seconds(folder: Path, copies: int) -> list[str]:
    """Rows of a list: all of the video, many times, in clips of half a second."""
    return [
        f"{video},{i * CLIP_S},{(i + 1) * CLIP_S}"
        for video in copies_of_video(folder, copies)
        for i in range(N_CLIPS)
    ]


def copies_of_video(folder: Path, copies: int) -> list[Path]:
    videos = [folder / f"{number}.mp4" for number in range(copies)]
    for video in videos:
        shutil.copyfile(machine.SHARED_VIDEOS / VIDEO, video)
    return videos


def extract_run(folder: Path, rows: list[str], options: list[str]) -> dict[str, Any]:
    """The run's part of the summary that `extract --log-json` ends with."""
    listed, out = folder / "list.csv", folder / "out"
    listed.write_text("path,start_s,end_s\n" + "\n".join(rows) + "\n")
    command = [sys.executable, "-m", "flowprep", "extract", "--src", str(listed)]
    command += ["--out", str(out), "--fps", "native", "--log-json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    shutil.rmtree(out)
    return json.loads(done.stdout.splitlines()[-1])["run"]


def engine_rates(engine: str, cores: int, rounds: int) -> tuple[list[float], list[float]]:
    """Flows a second of one process and of one per core, in each round."""
    context = multiprocessing.get_context("spawn")
    barrier, rates = context.Barrier(cores), context.Queue()
    processes = [
        context.Process(target=_compute, args=(engine, number, cores, rounds, barrier, rates))
        for number in range(cores)
    ]
    for process in processes:
        process.start()
    one, every = [0.0] * rounds, [0.0] * rounds
    for _ in range(rounds * (1 + cores)):
        alone, number, rate = rates.get()
        (one if alone else every)[number] += rate
    for process in processes:
        process.join()
    return one, every


def _compute(engine: str, number: int, cores: int, rounds: int, barrier: Any, rates: Any) -> None:
    cv2.setNumThreads(1)
    gray = np.concatenate([gray_clip(i) for i in range(N_CLIPS)])
    instance = get_engine(engine)
    instance.compute(gray[:2])
    for a_round in range(rounds):
        for alone in (True, False):
            barrier.wait()
            if number == 0 or not alone:
                started = time.perf_counter()
                instance.compute(gray)
                seconds = time.perf_counter() - started
                rates.put((alone, a_round, (len(gray) - 1) / seconds))
            barrier.wait()


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
