"""Middlebury's .flo files (Baker et al., IJCV 2011)."""

from __future__ import annotations

import numpy as np

from flowprep.records import F32

MAGIC = 202021.25


def flo_bytes(flow_2HW: F32) -> bytes:
    """Flow in pixels as a .flo file, little-endian throughout.

    float32 202021.25, int32 width, int32 height, float32 u and v of each pixel, row by row.
    """
    height, width = flow_2HW.shape[1:]
    head = np.array([MAGIC], "<f4").tobytes() + np.array([width, height], "<i4").tobytes()
    return head + flow_2HW.transpose(1, 2, 0).astype("<f4").tobytes()
