"""Speed and agreement of engine `cuda` beside OpenCV CUDA, on real pairs, in one run on one GPU.

    python tests/bench/flow_cuda.py [--videos DIR] [--rounds 3]

The pairs are those of tests/bench/flow_pairs.json that move. A batch repeats them as often as it
takes; every round starts with another pair. Rates are the median over the rounds, of calls that
take uint8 frames from the host and give float32 flow back to it, or 8-bit codes as in an
extraction; COPY_THREADS of the host copy it to where it is wanted. OpenCV works on one pair at a
time: on its default stream, on a private one, and in four processes with one each.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import machine
import numpy as np
from flow_pairs import Pair, frames, load_list

from flowprep.flow.base import engine_status, get_engine
from flowprep.flow.reference_steps import level_sizes_HW
from flowprep.quantize import make_quantizer

SIZES = {"340x256": (340, 256), "224x224": (224, 224), "455x256": (455, 256), "720p": (1280, 720)}
LARGE = {"1080p": (1920, 1080), "2160p": (4096, 2160)}
BUDGETS = (None, int(0.8 * 4e9))  # what the engine takes: as it likes; of a card with 4 GB
BATCHES = (1, 4, 16, 64, 256, 512, 1024)
COPY_THREADS = 4
OPENCV_S = 8.0  # seconds for each way of running it
N_PROCESSES = 4


def main() -> None:
    options = _options()
    machine.SHARED_VIDEOS = options.videos
    pairs = [pair for pair in load_list() if pair.moves]
    engine = get_engine("cuda", threads=COPY_THREADS)
    rows = [size_row(engine, name, pairs, options.rounds) for name in SIZES]
    rows.append(codes_row(engine, pairs, options.rounds))
    rows += [batch_row(engine, n, pairs, options.rounds) for n in BATCHES]
    rows += [memory_row(name, n_bytes) for name in SIZES | LARGE for n_bytes in BUDGETS]
    gray = [frames(pair, SIZES["340x256"]) for pair in pairs]
    others = ["cpu"]
    if engine_status("opencv-cuda").available:
        rows += opencv_rows(gray)
        others.append("opencv-cuda")
    rows += [agreement_row(numerics, o, gray) for numerics in ("fast", "exact") for o in others]
    print(machine.markdown(rows))
    print(machine.save("flow_cuda", rows, device=engine.build, **machine.gpu()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=Path, default=machine.SHARED_VIDEOS)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def batch_of(grays: Sequence[np.ndarray], n_pairs: int, start: int) -> list[np.ndarray]:
    return [grays[(start + i) % len(grays)] for i in range(n_pairs)]


def measure(
    engine: Any,
    grays: Sequence[np.ndarray],
    n_pairs: int,
    rounds: int,
    compute: Callable[[list[np.ndarray]], Any],
) -> dict[str, Any]:
    """Flows and pixel-iterations a second."""
    compute(batch_of(grays, n_pairs, 0))  # memory and code are there now
    seconds, pixel_iterations = [], []
    for number in range(rounds):
        clips = batch_of(grays, n_pairs, 7 * number + 1)
        start = time.perf_counter()
        compute(clips)
        seconds.append(time.perf_counter() - start)
        pixel_iterations.append(count(engine, clips))
    spent = float(np.median(seconds))
    return {
        "pairs": n_pairs,
        "flows/s": round(n_pairs / spent, 1),
        "px-it/s": f"{np.median(np.array(pixel_iterations) / seconds):.3g}",
        "spread": round(max(seconds) / min(seconds), 3),
    }


def count(engine: Any, clips: list[np.ndarray]) -> float:
    areas = [h * w for h, w in level_sizes_HW(*clips[0].shape[1:], 5, 0.8)]
    total = 0.0
    for _, solved in engine.solve(clips):
        total += float((solved.counts_PLW.sum(axis=(0, 2)) * areas).sum())
    return total


def size_row(engine: Any, name: str, pairs: list[Pair], rounds: int) -> dict[str, Any]:
    grays = [frames(pair, SIZES[name]) for pair in pairs]
    n_pairs = engine.batch_pairs(grays[0].shape[1:])
    measured = measure(engine, grays, n_pairs, rounds, engine.compute_batch)
    return {"engine": "cuda", "size": name, **measured}


def codes_row(engine: Any, pairs: list[Pair], rounds: int) -> dict[str, Any]:
    grays = [frames(pair, SIZES["340x256"]) for pair in pairs]
    n_pairs = engine.batch_pairs(grays[0].shape[1:])
    compute = partial(engine.compute_codes_batch, quantizer=make_quantizer("symmetric", 20))
    measured = measure(engine, grays, n_pairs, rounds, compute)
    return {"engine": "cuda, codes", "size": "340x256", **measured}


def batch_row(engine: Any, n_pairs: int, pairs: list[Pair], rounds: int) -> dict[str, Any]:
    grays = [frames(pair, SIZES["340x256"]) for pair in pairs]
    measured = measure(engine, grays, n_pairs, rounds, engine.compute_batch)
    return {"engine": "cuda", "size": "340x256", **measured}


def memory_row(name: str, gpu_bytes: int | None) -> dict[str, Any]:
    """The largest batch of a size, and what it took of the device's free memory."""
    import cupy

    width, height = (SIZES | LARGE)[name]
    engine = get_engine("cuda", gpu_bytes=gpu_bytes)
    free_before, _ = cupy.cuda.Device(0).mem_info
    n_pairs = engine.batch_pairs((height, width))
    free, _ = cupy.cuda.Device(0).mem_info
    budget = f"{gpu_bytes / 1e9:.1f} GB" if gpu_bytes else "default"
    taken_gb = round((free_before - free) / 1e9, 2)
    return {"engine": f"cuda, memory {budget}", "size": name, "pairs": n_pairs, "GB": taken_gb}


# --- OpenCV ---


def opencv_rows(grays: list[np.ndarray]) -> list[dict[str, Any]]:
    ways: dict[str, Callable[[list[np.ndarray]], float]] = {
        "opencv-cuda, default stream": default_stream,
        "opencv-cuda, private stream": private_stream,
        f"opencv-cuda, {N_PROCESSES} processes": several_processes,
    }
    return [
        {"engine": name, "size": "340x256", "pairs": 1, "flows/s": round(way(grays), 1)}
        for name, way in ways.items()
    ]


def rate(compute: Callable[[np.ndarray], Any], grays: list[np.ndarray]) -> float:
    """Calls a second over some seconds, the first ones not counted."""
    for gray in grays[:4]:
        compute(gray)
    start, n = time.perf_counter(), 0
    while time.perf_counter() - start < OPENCV_S:
        compute(grays[n % len(grays)])
        n += 1
    return n / (time.perf_counter() - start)


def default_stream(grays: list[np.ndarray]) -> float:
    import cv2

    solver = cv2.cuda.OpticalFlowDual_TVL1.create()

    def compute(gray: np.ndarray) -> Any:
        on_device = []
        for frame in gray:
            on_device.append(cv2.cuda.GpuMat())
            on_device[-1].upload(frame)
        return solver.calc(*on_device, None).download()

    return rate(compute, grays)


def private_stream(grays: list[np.ndarray]) -> float:
    return rate(get_engine("opencv-cuda").compute, grays)


def several_processes(grays: list[np.ndarray]) -> float:
    with get_context("spawn").Pool(N_PROCESSES) as pool:
        return sum(pool.map(private_stream, [grays] * N_PROCESSES, chunksize=1))


def agreement_row(numerics: str, other: str, grays: list[np.ndarray]) -> dict[str, Any]:
    """End-point error per pair: the median over pairs, and the worst; CCORR as OpenCV's tests."""
    flows, theirs = both_flows(numerics, other, grays)
    errors = [np.hypot(*(a[0] - b[0])) for a, b in zip(flows, theirs, strict=True)]
    means, middles = ([float(f(e)) for e in errors] for f in (np.mean, np.median))
    ten = zip(*both_flows(numerics, other, grays, n_iterations=10), strict=True)
    apart = [one_minus_ccorr(a, b) for a, b in ten]
    return {
        "engine": f"cuda {numerics} - {other}",
        "size": "340x256",
        "pairs": len(grays),
        "mean px": round(float(np.median(means)), 5),
        "median px": round(float(np.median(middles)), 5),
        "worst mean px": round(max(means), 4),
        "1 - CCORR at 10 it": f"{np.median(apart):.2g}, worst {max(apart):.2g}",
    }


def both_flows(
    numerics: str, other: str, grays: list[np.ndarray], **params: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    ours = get_engine("cuda", numerics=numerics, **params).compute_batch(grays)
    engine = get_engine(other, **params)
    return ours, [engine.compute(gray) for gray in grays]


def one_minus_ccorr(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return abs(1 - float(a @ b / np.sqrt((a @ a) * (b @ b))))


if __name__ == "__main__":
    main()
