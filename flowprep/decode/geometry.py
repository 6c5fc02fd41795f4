"""Sizes, resizing and gray. All arrays are uint8, colour in RGB order."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

from flowprep.records import U8

Resize = Literal["area", "cv2-linear"]


def _nearest_even(value: Fraction) -> int:
    """The nearest even number, at least 2; an odd integer, halfway, goes up."""
    return max(2, 2 * ((value + 1) // 2))


def target_size(
    width: int, height: int, short_side: int | None, sar: Fraction | None = None
) -> tuple[int, int]:
    """Output width and height.

    The short side becomes `short_side`, the long side the nearest even number to its exact share;
    halfway between two even numbers (an odd integer) goes up. A square gives a square. With
    `short_side=None` the size stays as it is. With `sar` (sample aspect ratio, width over height)
    the width is multiplied by it first; at native size it is then rounded to the nearest even
    number, and the height stays.
    """
    shown = width * (sar or Fraction(1))
    if short_side is None:
        return (width if shown == width else _nearest_even(shown)), height
    if shown == height:
        return short_side, short_side
    if shown < height:
        return short_side, _nearest_even(height * short_side / shown)
    return _nearest_even(shown * short_side / height), short_side


def resize(rgb: U8, out_w: int, out_h: int, method: Resize = "area") -> U8:
    """Resize [H, W, 3] or [H, W].

    `area` averages when shrinking (cv2.INTER_AREA) and interpolates when enlarging
    (cv2.INTER_LINEAR). Where one axis grows and the other shrinks, the shrinking axis is averaged
    first and the growing one interpolated after. `cv2-linear` is cv2.INTER_LINEAR throughout, as
    denseflow does it.
    """
    import cv2

    in_h, in_w = rgb.shape[:2]
    if (in_w, in_h) == (out_w, out_h):
        return rgb
    if method == "cv2-linear":
        return cv2.resize(rgb, (out_w, out_h), interpolation=cv2.INTER_LINEAR)
    if method != "area":
        raise ValueError(f"unknown resize method {method!r}; allowed: area, cv2-linear")
    small_w, small_h = min(in_w, out_w), min(in_h, out_h)
    if (small_w, small_h) != (in_w, in_h):
        rgb = cv2.resize(rgb, (small_w, small_h), interpolation=cv2.INTER_AREA)
    if (small_w, small_h) != (out_w, out_h):
        rgb = cv2.resize(rgb, (out_w, out_h), interpolation=cv2.INTER_LINEAR)
    return rgb


def to_gray(rgb: U8) -> U8:
    """BT.601 luma of full-range RGB, [H, W, 3] to [H, W]."""
    import cv2

    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
