"""Samples of a shard, by sequential reading or by place. Never extracts a path."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np

from flowprep.errors import FlowprepError
from flowprep.quantize import make_quantizer
from flowprep.shard.schema import SampleInfo, SampleRow, parse_info
from flowprep.storage import Place, sha256_file, size_bytes


@dataclass(frozen=True)
class Sample:
    """The members of one sample: suffix -> bytes, in the order of the tar."""

    key: str
    members: dict[str, bytes]

    @property
    def info(self) -> SampleInfo:
        return parse_info(self.members["json"])


def iter_samples(path: Place) -> Iterator[Sample]:
    """Every sample of a tar, in order.

    Raises ValueError when the tar is damaged, a member is not a plain file or has no suffix, a
    sample's members do not lie together, or one comes twice.
    """
    seen: set[str] = set()
    key, members = "", dict[str, bytes]()
    for name, data in _members(path):
        stem, dot, suffix = name.partition(".")
        if not dot:
            raise ValueError(f"member {name!r} has no suffix")
        if stem != key:
            if members:
                yield Sample(key, members)
            if stem in seen:
                raise ValueError(f"members of sample {stem!r} do not lie together")
            key, members = stem, {}
            seen.add(stem)
        if suffix in members:
            raise ValueError(f"member {name!r} comes twice")
        members[suffix] = data
    if members:
        yield Sample(key, members)


def _members(path: Place) -> Iterator[tuple[str, bytes]]:
    try:
        n_bytes = size_bytes(path)
        with path.open("rb") as opened, tarfile.open(fileobj=opened, mode="r:") as tar:
            for member in tar:
                if not member.isreg() or member.issparse():
                    raise ValueError(f"member {member.name!r} is not a plain file")
                if not 0 <= member.size <= n_bytes - member.offset_data:
                    raise ValueError(f"member {member.name!r} claims {member.size:,} bytes")
                file = tar.extractfile(member)
                data = file.read() if file else b""
                if len(data) != member.size:
                    raise ValueError(f"member {member.name!r} is cut short")
                yield member.name, data
    except (tarfile.TarError, EOFError, OverflowError) as error:
        raise ValueError(f"damaged tar: {error}") from error


def read_at(path: Place, row: SampleRow) -> Sample:
    """One sample by its place in the index: no scan of the tar.

    Raises ValueError where the row leads out of the file; what the members hold is not looked at.
    """
    suffixes = {"cls": "cls", "flow": row.flow_member, "json": "json", "rgb": row.rgb_member}
    members = {}
    with path.open("rb") as file:
        n_bytes = file.seek(0, io.SEEK_END)
        for kind, suffix in suffixes.items():
            offset, size = getattr(row, f"{kind}_offset"), getattr(row, f"{kind}_size")
            if offset >= 0:
                if not 0 <= size <= n_bytes - offset:
                    raise ValueError(f"{kind} of {row.key} leads out of the {n_bytes:,} bytes")
                file.seek(offset)
                members[suffix] = file.read(size)
    return Sample(row.key, members)


def read_current(path: Place, row: SampleRow) -> Sample:
    """The same, but json and .cls with the label of the index: the sample's own may be older."""
    sample = read_at(path, row)
    if row.label == row.tar_label:
        return sample
    info = replace(sample.info, label=row.label, label_index=row.label_index)
    told = {"json": info.to_json(), "cls": str(row.label_index).encode()}
    return Sample(row.key, {name: told.get(name, data) for name, data in sample.members.items()})


def damaged_samples(path: Place, rows: list[SampleRow]) -> Iterator[SampleRow]:
    """Rows whose bytes in the tar are not those that were written."""
    for row in rows:
        start, stop = row.sample_offset, row.sample_offset + row.sample_size
        if sha256_file(path, start, stop) != row.sha256:
            yield row


class Slice(io.RawIOBase):
    """`size` bytes of an open file from `offset` on, as a file that can only be read.

    Reads by place and moves no one's position in the file: any number of them may share `handle`,
    across threads and forks too. It does not close the handle.
    """

    def __init__(self, handle: int, offset: int, size: int) -> None:
        self._handle, self._offset, self._size, self._at = handle, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As io.BytesIO: a place before the first byte is the first byte."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        room = memoryview(buffer)[: max(self._size - self._at, 0)]
        n_read = os.preadv(self._handle, [room], self._offset + self._at) if room.nbytes else 0
        self._at += n_read
        return n_read


def open_member(handle: int, offset: int, size: int) -> BinaryIO:
    """A member of a tar that is open as `handle`, as a seekable file: nothing is read yet."""
    return io.BufferedReader(Slice(handle, offset, size))


def check_coding(info: SampleInfo) -> None:
    """Raise ValueError where zero code and step are not those of the map and bound beside them."""
    try:
        quantizer = make_quantizer(info.flow_map, info.flow_bound_px)
    except FlowprepError as error:
        raise ValueError(error.message) from error
    stated = (info.flow_zero_code, info.flow_px_per_code)
    if stated != (float(quantizer.zero_code), float(quantizer.px_per_code)):
        raise ValueError(f"zero code and step {stated} do not fit the map {info.flow_map!r}")


def flow_px(info: SampleInfo, codes: np.ndarray) -> np.ndarray:
    """Codes [T-1, 2H, W] -> flow float32 [T-1, 2, H, W] in pixels, as the json says."""
    flow: Any = (codes.astype(np.float32) - np.float32(info.flow_zero_code)) * np.float32(
        info.flow_px_per_code
    )
    return flow.reshape(len(codes), 2, codes.shape[1] // 2, codes.shape[2])
