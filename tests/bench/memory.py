"""Memory of a worker on a long 1080p video, with the `constant` engine.

    python tests/bench/memory.py [--minutes 10] [--clip-max 60]

Renders the video (a rolling real frame), extracts it with one local worker, and reads the worker's
resident memory twice a second.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import cv2
import machine
import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clip-max", type=float, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "long.mp4"
        make_long_video(video, round(options.minutes * 60 * 25))
        samples = watch(video, Path(folder) / "out", options.clip_max)
    row = summary(samples) | {"minutes": options.minutes, "clip_max_s": options.clip_max}
    print(machine.markdown([row]))
    print(machine.save(f"memory_clip{options.clip_max:g}", [row]))


def make_long_video(path: Path, n_frames: int) -> None:
    """1080p at 25 fps: a real frame that rolls to the left by 8 pixels a frame."""
    real = machine.SHARED_VIDEOS / "v_ZNVhz7ctTq0.mp4"
    with av.open(str(real)) as container:
        first = next(container.decode(video=0)).to_ndarray(format="rgb24")
    wide = cv2.resize(first, (1920, 1080), interpolation=cv2.INTER_CUBIC)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height = 1920, 1080
        stream.options = {"preset": "ultrafast", "crf": "28"}
        for i in range(n_frames):
            rolled = np.roll(wide, -8 * i, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rolled, format="rgb24")))
        container.mux(stream.encode())


def watch(video: Path, out: Path, clip_max_s: float) -> list[float]:
    """Resident MB of the worker over the run."""
    command = [sys.executable, "-m", "flowprep", "extract", "--src", str(video), "--out", str(out)]
    command += ["--engine", "constant", "--executor", "local", "--workers", "1", "--quiet"]
    run = subprocess.Popen([*command, "--clip-max", str(clip_max_s)])
    samples = []
    while run.poll() is None:
        samples.append(max((_rss_mb(pid) for pid in _workers(run.pid)), default=0.0))
        time.sleep(0.5)
    if run.returncode:
        raise SystemExit(f"extract ended with {run.returncode}")
    return [s for s in samples if s]


def _workers(pid: int) -> list[int]:
    """Children that multiprocessing spawned to serve jobs."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = [int(p) for p in children.read_text().split()] if children.exists() else []
    return [p for p in found if b"spawn_main" in _cmdline(p)]


def _cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _rss_mb(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * 4096 / 1e6


def summary(samples: list[float]) -> dict[str, float]:
    """Peak, and the medians of the second and the last quarter: flat when they agree."""
    quarter = max(1, len(samples) // 4)
    return {
        "peak_mb": round(max(samples), 1),
        "second_quarter_mb": round(float(np.median(samples[quarter : 2 * quarter])), 1),
        "last_quarter_mb": round(float(np.median(samples[-quarter:])), 1),
        "samples": len(samples),
    }


if __name__ == "__main__":
    main()
