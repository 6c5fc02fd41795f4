"""Movies (mp4) written by hand, whose headers claim what their bytes cannot hold."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import cv2
import numpy as np

MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
FTYP = struct.pack(">I", 28) + b"ftypisom\0\0\2\0isomiso2mp41"
FIRST_SAMPLE = len(FTYP) + 8


def numbers(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def box(name: bytes, *content: bytes) -> bytes:
    data = b"".join(content)
    return numbers(8 + len(data)) + name + data


def full(name: bytes, *content: bytes, flags: int = 0) -> bytes:
    """A box with version 0 and flags."""
    return box(name, numbers(flags), *content)


def picture() -> bytes:
    """A JPEG of 64x48."""
    return bytes(cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1])


@dataclass(frozen=True, kw_only=True)
class Movie:
    """One track of JPEG samples, all of them the same bytes; each table may be replaced."""

    n_samples: int = 2
    data: bytes = field(default_factory=picture)
    tables: dict[str, bytes] = field(default_factory=dict)  # instead of or beside those made
    edits: bytes = b""
    handler: bytes = b"vide"
    size: tuple[int, int] = (64, 48)
    timescale: int = 25
    fragments: bytes = b""
    more: bytes = b""  # at the end of moov

    def __bytes__(self) -> bytes:
        moov = box(b"moov", self._mvhd(), box(b"trak", self._tkhd(), self._mdia()), self.more)
        return FTYP + box(b"mdat", self.data) + moov + self.fragments

    def _mvhd(self) -> bytes:
        times = numbers(0, 0, self.timescale, self.n_samples, 0x10000)
        return full(b"mvhd", times, bytes(12), MATRIX, bytes(24), numbers(2))

    def _tkhd(self) -> bytes:
        width, height = self.size
        place = numbers(0, 0, 1, 0, self.n_samples), bytes(16), MATRIX
        tkhd = full(b"tkhd", *place, numbers(width << 16, height << 16), flags=3)
        return tkhd + (box(b"edts", self.edits) if self.edits else b"")

    def _mdia(self) -> bytes:
        times = numbers(0, 0, self.timescale, self.n_samples)
        reference = self.tables.get("dref", full(b"dref", numbers(1), full(b"url ", flags=1)))
        minf = full(b"vmhd", bytes(8), flags=1), box(b"dinf", reference), self._stbl()
        return box(
            b"mdia",
            full(b"mdhd", times, b"\x55\xc4\0\0"),
            full(b"hdlr", bytes(4) + self.handler + bytes(13)),
            box(b"minf", *minf),
        )

    def _stbl(self) -> bytes:
        n, size = self.n_samples, len(self.data)
        pictured = struct.pack(">HH", *self.size) + numbers(0x480000, 0x480000, 0)
        entry = bytes(6) + b"\0\1" + bytes(16) + pictured + b"\0\1" + bytes(32) + b"\0\x18\xff\xff"
        made = {
            "stsd": full(b"stsd", numbers(1), box(b"jpeg", entry)),
            "stts": full(b"stts", numbers(1, n, 1)),
            "stsc": full(b"stsc", numbers(1, 1, 1, 1)),
            "stsz": full(b"stsz", numbers(size, n)),
            "stco": full(b"stco", numbers(n), numbers(FIRST_SAMPLE) * n),
        }
        wanted = {name: data for name, data in self.tables.items() if name != "dref"}
        return box(b"stbl", *(made | wanted).values())


def one_chunk(count: int) -> dict[str, bytes]:
    """Tables of `count` samples of a byte each, in one chunk: 60 bytes whatever the count."""
    return {
        "stts": full(b"stts", numbers(1, count, 1)),
        "stsc": full(b"stsc", numbers(1, 1, count, 1)),
        "stsz": full(b"stsz", numbers(1, count)),
        "stco": full(b"stco", numbers(1, FIRST_SAMPLE)),
    }


def fragment(count: int) -> bytes:
    """A moof of `count` samples of which nothing is told one by one."""
    run = full(b"trun", numbers(count))
    track = box(b"traf", full(b"tfhd", numbers(1), flags=0x20000), run)
    return box(b"moof", full(b"mfhd", numbers(1)), track)


EXTENDS = box(b"mvex", full(b"trex", numbers(1, 1, 1, 4, 0)))
