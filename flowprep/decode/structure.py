"""What the bytes of a container say about its own length, without decoding anything.

Only the outermost elements are looked at: top-level boxes of ISO media (mp4, mov, 3gp), the RIFF
size of AVI, the EBML segment of Matroska and WebM, the blocks of GIF, the file size that ASF (wmv)
records.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, NamedTuple, Protocol

from flowprep.errors import Reason
from flowprep.storage import place_of, size_bytes

BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"sidx", b"moof")
EBML_MAGIC = b"\x1a\x45\xdf\xa3"
SEGMENT_ID = b"\x18\x53\x80\x67"
ASF_MAGIC = b"\x30\x26\xb2\x75"
ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
GIF_EXTENSION, GIF_IMAGE = b"\x21", b"\x2c"


class Seekable(Protocol):
    """What boxes are read from."""

    def seek(self, offset: int, /) -> int: ...
    def read(self, n_bytes: int, /) -> bytes: ...


class Box(NamedTuple):
    """A box of ISO media: where it, its content and what follows begin, bytes in the file."""

    name: bytes
    start: int
    content: int
    end: int


def boxes(file: Seekable, stop: int, first: int = 0) -> Iterator[Box]:
    """Every box from the byte `first` to `stop`, not those inside; an end may lie behind `stop`."""
    start = first
    while start + 8 <= stop:
        file.seek(start)
        head = file.read(16)
        length, name, content = int.from_bytes(head[:4], "big"), head[4:8], start + 8
        if length == 1 and len(head) == 16:
            length, content = int.from_bytes(head[8:], "big"), start + 16
        end = stop if length == 0 else start + max(length, 8)
        yield Box(name, start, content, end)
        start = end


def _vint(data: bytes) -> tuple[int | None, int]:
    """An EBML size (None: unknown) and how many bytes it takes."""
    if not data or data[0] == 0:
        return None, len(data)
    width = 9 - data[0].bit_length()
    value = int.from_bytes(data[:width], "big") & ((1 << 7 * width) - 1)
    return (None if value == (1 << 7 * width) - 1 else value), width


def _segment_end(file: IO[bytes], size: int) -> int:
    """Where a Matroska segment says it ends; the file's own size when it does not say."""
    head = file.read(4096)
    header_size, width = _vint(head[4:12])
    at = 4 + width + (header_size or 0)
    if head[at : at + 4] != SEGMENT_ID:
        return size
    length, width = _vint(head[at + 4 : at + 12])
    return size if length is None else at + 4 + width + length


def _gif_end(file: IO[bytes], size: int) -> int:
    """Where the last block that was begun ends. A missing trailer alone is no damage."""
    head = file.read(13)
    at = 13 + _color_table_bytes(head[10:11])
    while at < size:
        file.seek(at)
        kind = file.read(1)
        if kind == GIF_IMAGE:
            at += 10 + _color_table_bytes(file.read(9)[8:9]) + 1
        elif kind == GIF_EXTENSION:
            at += 2
        else:
            break
        at = _sub_blocks_end(file, at, size)
    return at


def _color_table_bytes(flags: bytes) -> int:
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _sub_blocks_end(file: IO[bytes], at: int, size: int) -> int:
    """Behind a chain of sub-blocks, which a block of length 0 closes."""
    while at < size:
        file.seek(at)
        length = file.read(1)[0]
        at += 1 + length
        if length == 0:
            return at
    return max(at, size + 1)


def _asf_end(file: IO[bytes], size: int) -> int:
    """The file size that an ASF header records, unless it was written as a live broadcast."""
    head = file.read(64 * 1024)
    at = head.find(ASF_FILE_PROPERTIES)
    live = at < 0 or len(head) < at + 92 or head[at + 88] & 1
    return size if live else int.from_bytes(head[at + 40 : at + 48], "little")


def _stated_end(file: IO[bytes], size: int) -> int:
    head = file.read(12)
    file.seek(0)
    if head[4:8] in BOXES:
        return max(box.end for box in boxes(file, size))
    if head[:4] == EBML_MAGIC:
        return _segment_end(file, size)
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return 8 + int.from_bytes(head[4:8], "little")
    if head[:4] == b"GIF8":
        return _gif_end(file, size)
    if head[:4] == ASF_MAGIC:
        return _asf_end(file, size)
    return size


def missing_bytes(path: str) -> int:
    """How many bytes the container announces beyond the end of the file; 0 when none or unsaid."""
    place = place_of(path, "path")
    size = size_bytes(place)
    with place.open("rb") as file:
        return max(0, _stated_end(file, size) - size)


def describe_damage(path: str) -> tuple[Reason, str] | None:
    """Why a file that starts like a video could not be opened; None when it does not start so."""
    place = place_of(path, "path")
    size = size_bytes(place)
    with place.open("rb") as file:
        head = file.read(12)
        iso = head[4:8] in BOXES
        known = iso or head[:4] in (EBML_MAGIC, ASF_MAGIC, b"GIF8") or head[8:12] == b"AVI "
        if not known:
            return None
        lost = missing_bytes(path)
        if lost:
            return "truncated", f"its header is cut off: at least {lost} bytes are missing"
        file.seek(0)
        if iso and all(box.name not in (b"moov", b"moof") for box in boxes(file, size)):
            return "truncated", "moov box missing: it was never finished or is cut off"
    return "decode-error", "the container's header is damaged"
