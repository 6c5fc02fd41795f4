"""Pictures put together from panels, lines of text and a colour wheel. All are uint8 [H, W, 3]."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np

from flowprep.records import U8, printable
from flowprep.report.color import flow_to_rgb

GAP, LINE = 8, 22  # white between panels, height of a line of text
WHEEL = 180  # side of the colour wheel in a legend


def resized(picture_HW3: U8, height: int, width: int, *, smooth: bool = False) -> U8:
    """Another size; without `smooth` cells stay squares of one colour."""
    import cv2

    method = cv2.INTER_AREA if smooth else cv2.INTER_NEAREST_EXACT
    changed: U8 = cv2.resize(picture_HW3, (width, height), interpolation=method)
    return changed


def wheel(side: int) -> U8:
    """The colours of all directions; the rim has the longest vector."""
    at = np.linspace(-1, 1, side, dtype=np.float32)
    xy_2HW = np.stack(np.meshgrid(at, at))
    colors = flow_to_rgb(xy_2HW, 1.0)
    colors[np.hypot(*xy_2HW) > 1] = 255
    return colors


def legend(longest_px: float, unit: str, width: int, side: int = WHEEL) -> U8:
    """The wheel, and what its rim stands for."""
    says = ["red: to the right", f"rim: {longest_px:.2f} or longer", *textwrap.wrap(unit, 30)]
    return below([wheel(side), *(text(line, width) for line in says)])


def text(line: str, width: int) -> U8:
    """Black text on white, as much of it as fits; OpenCV's letters are those of ASCII."""
    import cv2

    ascii_only = printable(line).encode("ascii", "backslashreplace").decode()
    picture = np.full((LINE, width, 3), 255, np.uint8)
    place, font = (2, 16), cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(picture, ascii_only, place, font, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return picture


def beside(parts: Sequence[U8]) -> U8:
    """From left to right, each with a gap behind it."""
    height = max(len(part) for part in parts)
    return np.hstack([padded(part, height, part.shape[1] + GAP) for part in parts])


def below(parts: Sequence[U8]) -> U8:
    """From top to bottom, each with half a gap below it."""
    width = max(part.shape[1] for part in parts)
    return np.vstack([padded(part, len(part) + GAP // 2, width) for part in parts])


def padded(picture_HW3: U8, height: int, width: int) -> U8:
    """White below and at the right, up to this size."""
    down, right = height - len(picture_HW3), width - picture_HW3.shape[1]
    return np.pad(picture_HW3, ((0, down), (0, right), (0, 0)), constant_values=255)


def framed(picture_HW3: U8) -> U8:
    """A gap of white around it."""
    return np.pad(picture_HW3, ((GAP, GAP), (GAP, GAP), (0, 0)), constant_values=255)


def png(picture_HW3: U8) -> bytes:
    """The bytes of a PNG file."""
    import cv2

    return bytes(cv2.imencode(".png", picture_HW3[..., ::-1])[1])
