"""What the header of a movie (mp4, mov, 3gp) claims, before FFmpeg believes it.

FFmpeg makes an entry of 24 bytes for every sample that a header counts, and once more for every
edit that shows it, whether the file can hold so many or not: of 1 KB it makes gigabytes. So the
counts are added up first. Each sample takes a byte at least. Exempt is sound whose header counts
single values (one time of one tick for all), of which FFmpeg makes entries of 1024 and more.

The names are searched for wherever they stand below a box that FFmpeg looks into: it takes them at
any depth.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

from flowprep.decode.bytestream import ByteStream
from flowprep.decode.structure import boxes, missing_bytes
from flowprep.errors import ClipError

HEADERS = frozenset(
    b"moov moof trak traf mdia minf stbl edts mvex udta meta dinf wave ilst tref cmov tapt"
    b" iprp sinf schi jp2h strk grpl ----".split()
)
"""Boxes outside of which FFmpeg looks for none of COUNTS."""
SPOILT = frozenset({b"free", b"hoov"})
"""Boxes that FFmpeg takes for a moov when they begin like one."""
COUNTS = re.compile(
    rb"hdlr(?=.{8}(?P<kind>.{4}))|(?:stsz|stz2)(?=.{8}(?P<samples>.{4}))"
    rb"|stts(?=.{4}(?P<times>.{4}.{8}))|trun(?=.{4}(?P<run>.{4}))|elst(?=.{4}(?P<edits>.{4}))"
    rb"|cmov(?P<packed>)",
    re.DOTALL,
)
MAX_HEADER_BYTES = 256 << 20
MAX_EDITED = 2_000_000
"""Samples times edits that a small file may have; a large one as many as it has bytes."""
SOUND_LUMP = 1024
ONE_TICK = (1, 1)  # entries, ticks


@dataclass(kw_only=True)
class _Counts:
    """What one track, or all outside of tracks, counts."""

    samples: int = 0
    edits: int = 0
    is_shown: bool = False  # a handler says video, or none says sound
    is_packed: bool = False

    @classmethod
    def of(cls, header: bytes) -> _Counts:
        counts, kinds, single = cls(), set(), True
        for found in COUNTS.finditer(header):
            numbers = {name: data for name, data in found.groupdict().items() if data is not None}
            counts.is_packed |= "packed" in numbers
            counts.samples += _number(numbers.get("samples")) + _number(numbers.get("run"))
            counts.edits += _number(numbers.get("edits"))
            kinds.add(numbers.get("kind", b""))
            if times := numbers.get("times"):
                single &= (_number(times[:4]), _number(times[8:])) == ONE_TICK
        counts.is_shown = b"vide" in kinds or b"soun" not in kinds or not single
        return counts

    @property
    def entries(self) -> int:
        return self.samples if self.is_shown else self.samples // SOUND_LUMP


def _number(data: bytes | None) -> int:
    return int.from_bytes(data or b"", "big")


def check_claims(file: ByteStream, path: str, size_bytes: int) -> None:
    """Raise ClipError `too-large` when a header counts more than `size_bytes` can hold.

    `unsupported-codec` when it is compressed, so that nobody can tell.
    """
    counts = [c for header in _headers(file, path, size_bytes) for c in _counts(header)]
    file.seek(0)
    if any(c.is_packed for c in counts):
        raise ClipError("unsupported-codec", f"{path}: its header is compressed (cmov)")
    n_entries = sum(c.entries for c in counts)
    if n_entries > size_bytes:
        cut = missing_bytes(path)
        raise ClipError(
            "truncated" if cut else "too-large",
            f"{path} lists {n_entries} frames in {size_bytes} bytes",
        )
    n_edited = sum(c.entries * c.edits for c in counts)
    if n_edited > (most := max(MAX_EDITED, size_bytes)):
        message = f"{path} lists {n_edited} frames in its edits; allowed are {most}"
        raise ClipError("too-large", message)


def _headers(file: ByteStream, path: str, size_bytes: int) -> Iterator[bytes]:
    """Each box at the top that may hold counts, with its own name."""
    for name, start, end in boxes(file, size_bytes):
        if not (name in HEADERS or (name in SPOILT and _is_moov(file, start))):
            continue
        n_bytes = min(end, size_bytes) - start
        if n_bytes > MAX_HEADER_BYTES:
            raise ClipError("too-large", f"{path} has a header of {n_bytes} bytes")
        file.seek(start)
        yield file.read(n_bytes)


def _is_moov(file: ByteStream, start: int) -> bool:
    file.seek(start + 12)
    return file.read(4) in (b"mvhd", b"cmov")


def _counts(header: bytes) -> Iterator[_Counts]:
    """Those of each track, and of what lies between."""
    between, at = [header[:8]], 8
    for name, start, end in boxes(io.BytesIO(header), len(header), first=8):
        if name == b"trak":
            yield _Counts.of(header[start:end])
            between.append(header[at:start])
            at = end
    yield _Counts.of(b"".join([*between, header[at:]]))
