"""Where windows lie in a clip, in time and in space, and what is cut out there.

A window is T frames, `stride` stored frames apart. A clip too short for it loops. The flow of a
frame leads to the next stored frame, so with a stride the flows of a window do not join up; the
last frame of a clip, which has no next one, gets the flow before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from flowprep.codec.base import Region
from flowprep.errors import FlowprepError
from flowprep.records import F32, I64, U8, Codes
from train.data.batch import FLOW_CLIP_PX

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """What is cut out of a clip. Lengths are frames and pixels."""

    frames: int = 64
    stride: int = 1  # stored frames from one frame of the window to the next
    resize: int = 0  # short side before the crop; 0 = as stored
    crop: int = 224  # side of the square
    hflip: bool = False  # mirror half of the training windows
    scale_flow: bool = False  # flow in pixels of the resized picture, not of the stored one
    shuffle_frames: bool = False  # in a random order, and their flows alike

    def __post_init__(self) -> None:
        for name, least in (("frames", 1), ("stride", 1), ("resize", 0), ("crop", 1)):
            if getattr(self, name) < least:
                raise FlowprepError(
                    f"--{name} {getattr(self, name)} is not usable", f"give {least} or more"
                )
        if self.resize and self.crop > self.resize:
            raise FlowprepError(
                f"--crop {self.crop} is larger than --resize {self.resize}",
                f"give --crop {self.resize} or less, or a larger --resize",
            )

    @property
    def span(self) -> int:
        """Stored frames from the first to the last frame of a window, both counted."""
        return (self.frames - 1) * self.stride + 1

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a picture before the crop."""
        if not self.resize:
            return height, width
        short = min(height, width)
        return round(height * self.resize / short), round(width * self.resize / short)


@dataclass(frozen=True)
class Crop:
    """The upper left corner of a crop in the resized picture, and whether it is mirrored."""

    top: int
    left: int
    flip: bool = False

    def within(self, region: Region | None) -> Crop:
        """The same crop where only `region` is left of the picture; None is all of it."""
        if region is None:
            return self
        return Crop(self.top - region.top, self.left - region.left, self.flip)


def random_start(config: WindowConfig, n_frames: int, rng: np.random.Generator) -> int:
    """A first frame from which the whole window lies in the clip, 0 where the clip is shorter."""
    return int(rng.integers(max(n_frames - config.span, 0) + 1))


def even_starts(config: WindowConfig, n_frames: int, n_clips: int) -> list[int]:
    """First frames of `n_clips` windows spread from end to end of a clip; of one, in the middle."""
    return _spread(max(n_frames - config.span, 0), n_clips)


def frames_at(config: WindowConfig, n_frames: int, start: int) -> I64:
    """int64 [T]: the stored frames of the window. Raises ValueError below two frames."""
    if n_frames < 2:
        raise ValueError(f"a clip of {n_frames} frames has no flow")
    return (start + config.stride * np.arange(config.frames)) % n_frames


def in_order(config: WindowConfig, frames_T: I64, rng: np.random.Generator) -> I64:
    """The frames in the order in which the network sees them."""
    return rng.permutation(frames_T) if config.shuffle_frames else frames_T


def flows_at(frames_T: I64, n_frames: int) -> I64:
    """int64 [T]: the stored flow of each frame; the last frame of a clip has that before it."""
    return np.minimum(frames_T, n_frames - 2)


def random_crop(config: WindowConfig, height: int, width: int, rng: np.random.Generator) -> Crop:
    """A crop anywhere in a picture of this stored size, mirrored half of the time if so set."""
    height, width = config.size(height, width)
    top, left, flip = (
        int(rng.integers(n)) for n in (height - config.crop + 1, width - config.crop + 1, 2)
    )
    return Crop(top, left, config.hflip and flip == 1)


def even_crops(config: WindowConfig, height: int, width: int, n_crops: int) -> list[Crop]:
    """Crops along the long side from end to end, centred on the short one; of one, the middle."""
    height, width = config.size(height, width)
    down, right = height - config.crop, width - config.crop
    if height > width:
        return [Crop(top, right // 2) for top in _spread(down, n_crops)]
    return [Crop(down // 2, left) for left in _spread(right, n_crops)]


def region_of(
    config: WindowConfig, crops: Sequence[Crop], height: int, width: int
) -> Region | None:
    """What `crops` need of a picture of this stored size; None, all of it, to resize it."""
    if config.resize:
        return None
    top, left = min(crop.top for crop in crops), min(crop.left for crop in crops)
    bottom = max(crop.top for crop in crops) + config.crop
    right = max(crop.left for crop in crops) + config.crop
    return Region(height, width, top, left, bottom - top, right - left)


def _spread(last: int, n: int) -> list[int]:
    """`n` whole numbers evenly from 0 to `last`; of one, half of `last`."""
    return [last // 2] if n == 1 else [round(last * i / (n - 1)) for i in range(n)]


def cut_rgb(config: WindowConfig, rgb_HW3: U8, crop: Crop, out_HW3: U8) -> None:
    """Write a crop of a stored frame into `out_HW3`, uint8 [crop, crop, 3]."""
    out_HW3[...] = _cut(config, _resized(config, rgb_HW3), crop)


def cut_flow(
    config: WindowConfig,
    codes_HW: Codes,
    zero_code: float,
    px_per_code: float,
    crop: Crop,
    out_2HW: F32,
) -> None:
    """Write a crop of stored flow into `out_2HW`, float32 [2, crop, crop] in FLOW_CLIP_PX.

    `codes_HW` are [2H, W], dx above dy.
    """
    height = len(codes_HW) // 2
    for axis, codes in enumerate((codes_HW[:height], codes_HW[height:])):
        step = px_per_code * (-1 if crop.flip and axis == 0 else 1)
        if config.resize:
            px = _resized(config, _look_up(_pixels(codes.dtype, zero_code, step), codes))
            scale = px.shape[1 - axis] / codes.shape[1 - axis] if config.scale_flow else 1
            cut = _cut(config, px, crop) * (scale / FLOW_CLIP_PX)
            np.clip(cut, -1, 1, out=out_2HW[axis])
        else:
            units = _units(codes.dtype, zero_code, step)
            _look_up(units, _cut(config, codes, crop), out_2HW[axis])


@lru_cache(maxsize=8)
def _pixels(dtype: np.dtype[Any], zero_code: float, px_per_code: float) -> F32:
    """The pixels of every code."""
    codes = np.arange(np.iinfo(dtype).max + 1, dtype=np.float64)
    return ((codes - zero_code) * px_per_code).astype(np.float32)


@lru_cache(maxsize=8)
def _units(dtype: np.dtype[Any], zero_code: float, px_per_code: float) -> F32:
    """What each code is in a batch."""
    return np.clip(_pixels(dtype, zero_code, px_per_code) / FLOW_CLIP_PX, -1, 1)


def _look_up(table: F32, codes_HW: Codes, out_HW: F32 | None = None) -> F32:
    """table[codes], into `out_HW` if given. OpenCV does it 3 times faster, for bytes only."""
    import cv2

    if codes_HW.dtype == np.uint8:
        return cv2.LUT(codes_HW, table[None], dst=out_HW)
    return np.take(table, codes_HW, out=out_HW, mode="clip")


def _resized(config: WindowConfig, array_HW: Array) -> Array:
    """[H, W] or [H, W, 3] at the size before the crop: averaged where it shrinks."""
    import cv2

    before = array_HW.shape[:2]
    height, width = config.size(*before)
    if (height, width) == before:
        return array_HW
    method = cv2.INTER_AREA if height < before[0] else cv2.INTER_LINEAR
    return cv2.resize(array_HW, (width, height), interpolation=method)


def _cut(config: WindowConfig, array_HW: Array, crop: Crop) -> Array:
    cut = array_HW[crop.top : crop.top + config.crop, crop.left : crop.left + config.crop]
    return cut[:, ::-1] if crop.flip else cut
