"""The videos of an experiment and the tables that label them.

videos/<set>/<number>.mkv is lossless (FFV1). A set is train, val, test, or train-bias90 for a
training set whose palettes tell the motion in 90 % of the videos. A table of labels says what
belongs to which split: one for each label space, size and bias of the training set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from flowprep.synth import write_video
from pipelines.motionbench.motions import MOTIONS, PALETTES
from pipelines.motionbench.render import Scene, draw_scene, render
from pipelines.motionbench.scales import Scale, Space

FPS = 25
SETS = ("train", "val", "test")


@dataclass(frozen=True)
class Video:
    """One video before it is rendered."""

    set: str
    number: int
    motion: int
    palette: int

    @property
    def path(self) -> str:
        """Below the folder of videos."""
        return f"{self.set}/{self.number:05d}.mkv"

    def label(self, space: Space) -> str:
        motion = MOTIONS[self.motion]
        return motion if space == "P" else f"{PALETTES[self.palette]} {motion}"

    def scene(self, scale: Scale) -> Scene:
        """What it shows: a function of its set and number, not of its class."""
        return draw_scene(self._rng(0), scale.side, scale.n_frames)

    def _rng(self, use: int) -> np.random.Generator:
        return np.random.default_rng((*self.set.encode(), self.number, use))


def set_name(bias: float) -> str:
    """The training set of a static bias."""
    return f"train-bias{round(100 * bias)}" if bias else "train"


def videos(name: str, n: int, bias: float = 0.0) -> list[Video]:
    """The first `n` of a set; of 48 that follow one another each has another class.

    With a bias that share of the videos have the palette that stands for their motion, the others
    any, at random.
    """
    return [_video(name, number, bias) for number in range(n)]


def _video(name: str, number: int, bias: float) -> Video:
    motion, palette = number % len(MOTIONS), number // len(MOTIONS) % len(PALETTES)
    if bias:
        rng = Video(name, number, motion, palette)._rng(1)
        is_told = rng.random() < bias
        palette = motion % len(PALETTES) if is_told else int(rng.integers(len(PALETTES)))
    return Video(name, number, motion, palette)


def all_videos(scale: Scale) -> list[Video]:
    """Every video of an experiment."""
    plain = [videos("train", scale.n_train[-1])]
    biased = [videos(set_name(b), scale.n_train[-1], b) for b in scale.biases]
    judged = [videos("val", scale.n_val), videos("test", scale.n_test)]
    return [video for some in (*plain, *biased, *judged) for video in some]


def write_videos(scale: Scale, folder: Path) -> int:
    """Render what is not there, on all cores. Returns how many were rendered."""
    missing = [v for v in all_videos(scale) if not (folder / v.path).exists()]
    for name in {video.set for video in missing}:
        (folder / name).mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(_cores(), get_context("spawn")) as pool:
        for _ in pool.map(partial(_write, scale, folder), missing, chunksize=16):
            pass
    return len(missing)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _write(scale: Scale, folder: Path, video: Video) -> None:
    """Aside first, so that a video that is there is whole."""
    aside = folder / video.set / f".{video.number:05d}.part.mkv"
    rgb = render(video.scene(scale), video.motion, video.palette)
    write_video(aside, rgb, FPS, codec="ffv1", pix_fmt="bgr0")
    aside.replace(folder / video.path)


@dataclass(frozen=True)
class Task:
    """A label space and a training set."""

    space: Space
    n_train: int
    bias: float = 0.0

    def __str__(self) -> str:
        return f"{self.space}-{self.n_train}" + (f"-bias{round(100 * self.bias)}" * bool(self.bias))

    def rows(self, scale: Scale) -> Iterator[tuple[str, str, str]]:
        """Path, label and split of every video that belongs to it."""
        parts: Sequence[tuple[str, list[Video]]] = (
            ("train", videos(set_name(self.bias), self.n_train, self.bias)),
            ("val", videos("val", scale.n_val)),
            ("test", videos("test", scale.n_test)),
        )
        for split, members in parts:
            for video in members:
                yield video.path, video.label(self.space), split

    def write(self, scale: Scale, folder: Path) -> Path:
        """Write the table that `train` takes as --labels."""
        path = folder / f"{self}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = ["path,label,split", *(",".join(row) for row in self.rows(scale))]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path
