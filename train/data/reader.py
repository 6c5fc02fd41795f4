"""Stretches of samples, decoded out of their tars."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from flowprep.codec.base import Region, get_codec
from flowprep.records import U8, Codes
from flowprep.shard.reader import check_coding, open_member
from flowprep.shard.schema import SampleInfo, parse_info
from flowprep.storage import RemotePath
from train.data.shards import MEMBERS
from train.data.table import Table

MAX_OPEN = 32
"""Tars that one process holds open."""


@dataclass(frozen=True)
class Span:
    """Frames or flows start..stop-1 of a sample, and what of each is wanted: None is all."""

    start: int
    stop: int
    region: Region | None = None

    def __iter__(self) -> Iterator[int]:
        """Start and stop."""
        return iter((self.start, self.stop))


class Stretch(NamedTuple):
    """What is read of one sample, decoded as it is taken; what was not asked for is None.

    Taking raises ValueError where the sample is damaged, OSError where the system refuses.
    """

    rgb_HW3: Iterator[U8] | None
    codes_HW: Iterator[Codes] | None  # [2H, W], dx above dy; px = (code - zero_code) * px_per_code
    zero_code: float
    px_per_code: float
    region: Region | None = None  # what these pictures are of the stored ones: None is all


class Reader(Protocol):
    """Where stretches come from."""

    def read(self, row: int, rgb: Span | None, flow: Span | None) -> Stretch:
        """Frames and flows of sample `row`. Raises as taking them does.

        Both spans have the same region. A reader may give whole pictures all the same.
        """
        ...


class ShardReader:
    """Reads by the places in the index, no more than the stretch needs.

    It may be copied to another process, by fork or by pickle; no file is opened before it is used.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._handles: OrderedDict[int, int] = OrderedDict()  # tar -> file handle, oldest first

    def __getstate__(self) -> dict[str, object]:
        return {"_table": self._table, "_handles": OrderedDict()}

    def read(self, row: int, rgb: Span | None, flow: Span | None) -> Stretch:
        """See Reader."""
        info = self._info(row)
        return Stretch(
            None if rgb is None else self._frames(row, info, rgb),
            None if flow is None else self._codes(row, info, flow),
            info.flow_zero_code,
            info.flow_px_per_code,
            next((span.region for span in (rgb, flow) if span), None),
        )

    def close(self) -> None:
        """Close all files; the next read opens them again."""
        while self._handles:
            os.close(self._handles.popitem()[1])

    __del__ = close

    def _info(self, row: int) -> SampleInfo:
        info = parse_info(self._member(row, "json").read())
        key = self._table.key_N[row].as_py()
        if info.key != key:
            raise ValueError(f"the tar has sample {info.key} where the index has {key}")
        check_coding(info)
        return info

    def _frames(self, row: int, info: SampleInfo, span: Span) -> Iterator[U8]:
        frames = get_codec(info.rgb_codec, ["rgb"]).frames
        return frames(self._member(row, "rgb"), span.start, span.stop, _region(info, span))

    def _codes(self, row: int, info: SampleInfo, span: Span) -> Iterator[Codes]:
        frames = get_codec(info.flow_codec, ["flow8", "flow16"]).frames
        return frames(self._member(row, "flow"), span.start, span.stop, _region(info, span))

    def _member(self, row: int, member: str) -> BinaryIO:
        offset, size = self._table.places_N32[row, MEMBERS.index(member)].tolist()
        tar = self._table.tars[int(self._table.tar_N[row])]
        if isinstance(tar, RemotePath):
            return _fetched(tar, offset, size)
        handle = self._handle(int(self._table.tar_N[row]), tar)
        if (n_bytes := os.fstat(handle).st_size) < offset + size:
            raise ValueError(f"the tar has {n_bytes:,} bytes, the index more")
        return open_member(handle, offset, size)

    def _handle(self, tar: int, path: Path) -> int:
        if tar not in self._handles:
            while len(self._handles) >= MAX_OPEN:
                os.close(self._handles.popitem(last=False)[1])
            self._handles[tar] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._handles.move_to_end(tar)
        return self._handles[tar]


def _fetched(tar: RemotePath, offset: int, size: int) -> BinaryIO:
    """A member of a tar in object storage, by one request."""
    data = tar.read_range(offset, offset + size)
    if len(data) != size:
        raise ValueError(f"the tar ends before {offset + size:,} bytes, the index has more")
    return io.BytesIO(data)


def _region(info: SampleInfo, span: Span) -> Region:
    """Raises ValueError where the json tells another size than the index."""
    height, width = info.height, info.width
    region = span.region or Region(height, width, 0, 0, height, width)
    if (height, width) != (region.picture_height, region.picture_width):
        size = region.picture_height, region.picture_width
        raise ValueError(f"the json has pictures of {(height, width)}, the index of {size}")
    return region
