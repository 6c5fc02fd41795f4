"""Do equal frames give equal files? Encodes in several fresh processes, and counts the files."""

from __future__ import annotations

import hashlib
import multiprocessing
import tempfile
from pathlib import Path

import cv2
import numpy as np

from flowprep.codec.base import CODECS, get_codec

FPS = 25
WIDTHS = (16, 90, 171, 340)
N_PROCESSES = 4


def write(codec_name: str, frames: np.ndarray, folder: Path) -> bytes:
    codec = get_codec(codec_name, [CODECS[codec_name].kind])
    path = folder / f"clip.{codec.suffix}"
    with codec.open_writer(path, frames.shape[1], frames.shape[2]) as writer:
        writer.write(frames, np.arange(len(frames)) / FPS)
    return path.read_bytes()


def distinct_encodes(job: tuple[str, int, int]) -> list[str]:
    """Hashes of `n` encodes in this process, between allocations that move the heap about."""
    name, n, seed = job
    kind = CODECS[name].kind
    rng, junk, hashes = np.random.default_rng(0), [], set()
    clutter = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        for width in WIDTHS:
            noise = rng.integers(0, 256, (36, 64, width, 3)).astype(np.uint8)
            smooth = np.stack([cv2.GaussianBlur(frame, (0, 0), 4) for frame in noise])
            frames = smooth if kind == "rgb" else smooth[..., 0]
            frames = frames.astype(np.uint16) * 200 if kind == "flow16" else frames
            for _ in range(n):
                junk = [*junk[-20:], np.full(int(clutter.integers(1, 300_000)), 255, np.uint8)]
                digest = hashlib.sha256(write(name, frames, Path(folder))).hexdigest()
                hashes.add(f"{width} {digest}")
    return sorted(hashes)


def equal_encodes(name: str, n: int) -> dict[str, object]:
    """`n` encodes at each width, spread over fresh processes: how many files came of it."""
    jobs = [(name, n // N_PROCESSES, seed) for seed in range(N_PROCESSES)]
    with multiprocessing.get_context("spawn").Pool(2, maxtasksperchild=1) as pool:
        files = set().union(*map(set, pool.map(distinct_encodes, jobs, chunksize=1)))
    equal = len(files) == len(WIDTHS)
    return {"encodes": n, "widths": WIDTHS, "processes": N_PROCESSES, "equal": equal}
