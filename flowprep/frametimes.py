"""Frame times of a video in few bytes, so that a driver can hold those of a million videos."""

from __future__ import annotations

import struct

import numpy as np

from flowprep.records import I64

HEAD = struct.Struct("<qIB")
"""The first time, the number of frames, and the bytes of a step; 0 where all steps are one."""
STEPS = {width: np.dtype(f"<u{width}") for width in (1, 2, 4)} | {8: np.dtype("<i8")}


def pack(pts: I64) -> bytes:
    """The steps from frame to frame of int64 [n_frames], in as few bytes each as the longest."""
    steps = np.diff(pts)
    first = int(pts[0]) if len(pts) else 0
    if not len(steps):
        return HEAD.pack(first, len(pts), 0)
    low, high = int(steps.min()), int(steps.max())
    if low == high:
        return HEAD.pack(first, len(pts), 0) + steps[:1].tobytes()
    width = next((w for w in (1, 2, 4) if low >= 0 and high < 256**w), 8)
    return HEAD.pack(first, len(pts), width) + steps.astype(STEPS[width]).tobytes()


def unpack(packed: bytes) -> I64:
    """The frame times, int64 [n_frames]."""
    first, n_frames, width = HEAD.unpack_from(packed)
    pts = np.empty(n_frames, np.int64)
    pts[:1] = first
    if n_frames > 1:
        pts[1:] = np.frombuffer(packed, STEPS[width or 8], offset=HEAD.size)
    return np.cumsum(pts, out=pts)
