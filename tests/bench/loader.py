"""Random training windows from shards, and from loose JPEG frames of the same clips.

    python tests/bench/loader.py [--videos ../shared/videos] [--work DIR] [--rounds 7]

A window is 64 frames with their flow and one crop of 224, out of what `flowprep extract` made of a
few real videos at its default settings. The peer reads the same frames as JPEG q95, one file for
RGB, flow x and flow y of every frame as denseflow writes them, by cv2.imread; it draws the same
windows, and crops and converts them by the same code. One process, one thread, rounds interleaved,
files warm. Time is CPU time of the process, so that neighbours on the machine count less.

Slow storage is made for both alike: every read sleeps for as long as its bytes take at the given
rate, with nothing read ahead. 100 MB/s are had by one core alone, or shared evenly by several.
`overlapped` is what more worker processes than cores come near to: the lower of what a core
decodes and of what its share of the storage delivers, out of the same measurements.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import machine
import numpy as np
import torch
from loader_peer import STORAGE, CountedSlice, LooseReader, write_loose

import flowprep.shard.reader
from train.data import cutter
from train.data.loader import train_loader
from train.data.reader import ShardReader
from train.data.table import Table, load_table
from train.data.windows import WindowConfig

VIDEOS = ["arm_wrestling.mp4", "mmaction2_test.avi", "v_GGSY1Qvo990.mp4", "v_ZNVhz7ctTq0.mp4"]
PRESETS = {"default": ("x264", "x264-flow"), "fast": ("x264-fast", "x264-flow-fast")}
BATCH, STEPS = 4, 2
CLIPS = BATCH * STEPS
STORAGE_MB_S = 100.0
CORES = [1, 4, 16]  # that share it
STAGES = {  # where the time goes: functions of this name
    "open": ["av.container.core.open"],
    "read": ["posix.preadv"],
    "decode": ["CodecContext", "<imread>"],
    "colours": ["cvtColor", "to_ndarray", "hstack"],
    "flow to float": ["<LUT>"],
    "crop": ["cut_rgb"],
}


def extract(videos: Path, out: Path, preset: str) -> None:
    """`flowprep extract` at its default settings, of VIDEOS."""
    if (out / "_flowprep" / "dataset.json").exists():
        return
    rgb, flow = PRESETS[preset]
    with tempfile.TemporaryDirectory() as folder:
        for name in VIDEOS:
            (Path(folder) / name).symlink_to((videos / name).resolve())
        command = [sys.executable, "-m", "flowprep", "extract", "--src", folder, "--out", str(out)]
        options = ["--engine", "cpu", "--executor", "local", "--quiet"]
        codecs = ["--rgb-codec", rgb, "--flow-codec", flow]
        subprocess.run([*command, *options, *codecs], check=True)


class Contestant:
    """One way to read the windows."""

    def __init__(
        self, name: str, table: Table, reader: Callable[[Table], Any], stored: int
    ) -> None:
        self.name, self.stored = name, stored
        self._table, self._reader = table, reader
        self.clip_s: dict[float, list[float]] = defaultdict(list)  # by rate of storage
        self.window_bytes: list[int] = []

    def round(self, number: int, mb_per_s: float = 0.0, **need: bool) -> None:
        """STEPS batches; the same number draws the same windows for all."""
        cutter.ShardReader = self._reader  # type: ignore[misc, assignment]
        start = number * STEPS
        batches = train_loader(
            self._table, WindowConfig(), batch=BATCH, seed=0, start_step=start, **need
        )
        STORAGE.n_bytes, STORAGE.owed_s, STORAGE.waited_s, STORAGE.mb_per_s = 0, 0.0, 0.0, mb_per_s
        before = time.process_time()
        for _ in range(STEPS):
            next(batches)
        taken_s = time.process_time() - before + STORAGE.waited_s
        if not need:
            self.clip_s[mb_per_s].append(taken_s / CLIPS)
            self.window_bytes.append(STORAGE.n_bytes // CLIPS)

    def stages_ms(self, **need: bool) -> dict[str, float]:
        """Milliseconds of a window in each stage, of one modality."""
        with cProfile.Profile(time.process_time) as profile:
            self.round(0, **need)
        spent: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
        for (_, _, function), (_, _, own_s, *_) in stats.items():
            for stage, names in STAGES.items():
                if any(name in function for name in names):
                    spent[stage] += own_s
        spent["rest"] = sum(own[2] for own in stats.values()) - sum(spent.values())
        return {stage: round(1000 * s / CLIPS, 1) for stage, s in spent.items()}


def main() -> None:
    options = _options()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    flowprep.shard.reader.Slice = CountedSlice  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder:
        contestants = prepare(options.videos, options.work or Path(folder))
        rates = [0.0, *(STORAGE_MB_S / n for n in CORES)]
        for number in range(options.rounds):
            for rate in rates:
                for one in contestants:
                    one.round(number, rate)
        speed = speed_rows(contestants, rates)
        stages = stage_rows(contestants)
    print(machine.markdown(speed))
    print(machine.markdown(stages))
    about = {"torch": torch.__version__, "load": os.getloadavg(), "rounds": options.rounds}
    print(machine.save("loader", {"about": about, "speed": speed, "stages_ms": stages}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=Path, default=machine.SHARED_VIDEOS)
    parser.add_argument("--work", type=Path, help="keeps shards and JPEG for the next time")
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


def prepare(videos: Path, work: Path) -> list[Contestant]:
    """The JPEG peer first, then a contestant for each preset."""
    for preset in PRESETS:
        extract(videos, work / preset, preset)
    LooseReader.folder = work / "jpeg"
    if not LooseReader.folder.exists():
        write_loose(work / "default", LooseReader.folder)
    n_jpeg = sum(path.stat().st_size for path in LooseReader.folder.rglob("*.jpg"))
    tables = {p: load_table(str(work / p), labelled=False, val_share=0) for p in PRESETS}
    shards = [
        Contestant(f"shards, {p}", t, ShardReader, sum(tar.stat().st_size for tar in t.tars))
        for p, t in tables.items()
    ]
    return [Contestant("JPEG q95", tables["default"], LooseReader, n_jpeg), *shards]


def speed_rows(contestants: list[Contestant], rates: list[float]) -> list[dict[str, Any]]:
    peer, rows = contestants[0], []
    for rate in rates:
        for one in contestants:
            times = sorted(one.clip_s[rate])
            pairs = zip(peer.clip_s[rate], one.clip_s[rate], strict=True)
            row = {
                "reader": one.name,
                "storage of a core": f"{rate:g} MB/s" if rate else "warm disk",
                "clips/s per core": round(1 / median(times), 2),
                "from..to": f"{1 / times[-1]:.2f}..{1 / times[0]:.2f}",
                "of JPEG": round(median(theirs / ours for theirs, ours in pairs), 2),
                "overlapped": round(overlapped(one, rate), 2),
                "overlapped of JPEG": round(overlapped(one, rate) / overlapped(peer, rate), 2),
                "KB a window": round(np.mean(one.window_bytes) / 1000),
                "bytes stored of JPEG": f"{one.stored / peer.stored:.1%}",
            }
            rows.append(row)
    return rows


def overlapped(one: Contestant, rate: float) -> float:
    """Clips a second where reading and decoding go on at the same time."""
    decoding = 1 / median(one.clip_s[0.0])
    return min(decoding, rate * 1e6 / float(np.mean(one.window_bytes))) if rate else decoding


def stage_rows(contestants: list[Contestant]) -> list[dict[str, Any]]:
    rows = []
    for one in contestants:
        for name, need in {"RGB": {"need_flow": False}, "flow": {"need_rgb": False}}.items():
            rows.append({"reader": one.name, "ms a window": name} | one.stages_ms(**need))
    return rows


if __name__ == "__main__":
    main()
