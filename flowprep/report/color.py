"""Flow as colour: hue is the direction, saturation the length."""

from __future__ import annotations

import numpy as np

from flowprep.records import F32, U8


def flow_to_rgb(uv: F32, longest_px: float) -> U8:
    """Flow float32 [2, H, W] in pixels -> uint8 [H, W, 3]; white is no motion.

    Full saturation from `longest_px` on. Right is red, down is yellow-green, as in an HSV wheel.
    """
    hue = np.arctan2(uv[1], uv[0]) / (2 * np.pi) % 1
    saturation = np.minimum(np.hypot(uv[0], uv[1]) / longest_px, 1)
    return hsv_to_rgb(hue, saturation)


def hsv_to_rgb(hue: np.ndarray, saturation: np.ndarray) -> U8:
    """Hue and saturation in 0..1, value 1 -> uint8 [..., 3] (the piecewise-linear HSV hexagon)."""
    sector = (np.array([5, 3, 1]) + hue[..., None] * 6) % 6
    ramp = np.clip(np.minimum(sector, 4 - sector), 0, 1)
    return np.rint(255 * (1 - saturation[..., None] * ramp)).astype(np.uint8)
