"""Samples of a shard, by sequential reading or by place. Never extracts a path."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flowprep.shard.schema import SampleInfo, SampleRow, parse_info


@dataclass(frozen=True)
class Sample:
    """The members of one sample: suffix -> bytes, in the order of the tar."""

    key: str
    members: dict[str, bytes]

    @property
    def info(self) -> SampleInfo:
        return parse_info(self.members["json"])


def iter_samples(path: Path) -> Iterator[Sample]:
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


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.isreg():
                    raise ValueError(f"member {member.name!r} is not a plain file")
                file = tar.extractfile(member)
                data = file.read() if file else b""
                if len(data) != member.size:
                    raise ValueError(f"member {member.name!r} is cut short")
                yield member.name, data
    except (tarfile.TarError, EOFError, OverflowError) as error:
        raise ValueError(f"damaged tar: {error}") from error


def read_at(path: Path, row: SampleRow) -> Sample:
    """One sample by its place in the index: no scan of the tar."""
    suffixes = {"cls": "cls", "flow": row.flow_member, "json": "json", "rgb": row.rgb_member}
    members = {}
    with path.open("rb") as file:
        for kind, suffix in suffixes.items():
            offset, size = getattr(row, f"{kind}_offset"), getattr(row, f"{kind}_size")
            if offset >= 0:
                file.seek(offset)
                members[suffix] = file.read(size)
    return Sample(row.key, members)


def flow_px(info: SampleInfo, codes: np.ndarray) -> np.ndarray:
    """Codes [T-1, 2H, W] -> flow float32 [T-1, 2, H, W] in pixels, as the json says."""
    flow: Any = (codes.astype(np.float32) - np.float32(info.flow_zero_code)) * np.float32(
        info.flow_px_per_code
    )
    return flow.reshape(len(codes), 2, codes.shape[1] // 2, codes.shape[2])
