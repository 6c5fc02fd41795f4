"""Frame times of a video in few bytes, so that a driver can hold those of a million videos."""

from __future__ import annotations

import struct
from bisect import bisect
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flowprep.records import I64

HEAD = struct.Struct("<qIB")
"""The first time, the number of frames, and the bytes of a step; 0 where all steps are one."""
STEPS = {width: np.dtype(f"<u{width}") for width in (1, 2, 4)} | {8: np.dtype("<i8")}


def pack(pts: I64) -> bytes:
    """The steps from frame to frame of int64 [n_frames], in as few bytes each as the longest."""
    steps = pts[1:] - pts[:-1]
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


Times = Sequence[bytes | None]
"""The packed frame times of each video; None where probing found none."""


class StoredTimes(Sequence[bytes | None]):
    """Those of a parquet file, whose row groups are read when first asked for."""

    def __init__(self, file: pq.ParquetFile) -> None:
        self._file = file
        sizes = (file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))
        self._starts = [0, *accumulate(sizes)]
        self._read: dict[int, list[bytes | None]] = {}

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, place: int) -> bytes | None: ...
    @overload
    def __getitem__(self, place: slice) -> list[bytes | None]: ...
    def __getitem__(self, place: int | slice) -> bytes | list[bytes | None] | None:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        group = bisect(self._starts, place) - 1
        if group not in self._read:
            lists = self._file.read_row_group(group, columns=["pts"]).column(0)
            arrays = (one for chunk in lists.chunks for one in _arrays(chunk))
            self._read[group] = [None if one is None else pack(one) for one in arrays]
        return self._read[group][place - self._starts[group]]


def _arrays(lists: pa.ListArray) -> Iterator[I64 | None]:
    """The arrays int64 [n_frames] of a list array, None for a null."""
    values, offsets = lists.values.to_numpy(zero_copy_only=False), lists.offsets.to_numpy()
    for there, start, stop in zip(lists.is_valid(), offsets[:-1], offsets[1:], strict=True):
        yield values[start:stop] if there.as_py() else None
