"""The clip that everything is measured on: rendered, so that it is the same on every machine."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from flowprep.decode.geometry import to_gray
from flowprep.errors import FlowprepError
from flowprep.flow.base import TVL1Params, get_engine
from flowprep.flow.reference_steps import level_sizes_HW
from flowprep.records import F32, U8
from flowprep.synth import Motion, render, write_video

HEIGHT, WIDTH, N_FRAMES, FPS = 256, 340, 17, 25
MOTION = Motion(dx_px=4.0, dy_px=2.0, rotate_deg=1.0, zoom=1.01)
DESCRIPTION = (
    f"{N_FRAMES} frames of {WIDTH}x{HEIGHT}, a rendered texture that moves by 4 px right and 2 px "
    "down, turns by 1 degree and grows by 1 % a frame"
)


@dataclass(frozen=True)
class BenchClip:
    """The frames in gray, uint8 [T, H, W], and as a video."""

    gray_THW: U8
    video: Path


def render_clip(folder: Path) -> BenchClip:
    """Render it and write `folder`/clip.mp4."""
    rgb_THW3 = render(MOTION, N_FRAMES, HEIGHT, WIDTH)
    video = folder / "clip.mp4"
    write_video(video, rgb_THW3, FPS)
    return BenchClip(np.stack([to_gray(rgb) for rgb in rgb_THW3]), video)


@dataclass(frozen=True)
class Solved:
    """The clip's flow, and how many pixels times iterations, over all levels, a pair took."""

    flow_T2HW: F32
    pixel_iterations: float


def solve(gray_THW: U8) -> Solved | None:
    """By engine `cpu`, which iterates by OpenCV CUDA's rules; None where it cannot run."""
    try:
        engine: Any = get_engine("cpu")
    except FlowprepError:
        return None
    solutions = [engine.solve(*pair) for pair in pairwise(gray_THW)]
    iterations = np.mean([_counted(solution.counts_LW) for solution in solutions])
    return Solved(np.stack([solution.flow_2HW for solution in solutions]), float(iterations))


def _counted(counts_LW: np.ndarray) -> int:
    scale_step = TVL1Params().scale_step
    sizes_HW = level_sizes_HW(HEIGHT, WIDTH, n_scales=len(counts_LW), scale_step=scale_step)
    return sum(h * w * int(n.sum()) for (h, w), n in zip(sizes_HW, counts_LW, strict=True))
