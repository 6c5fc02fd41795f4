"""What the header of a movie (mp4, mov, 3gp) claims, before FFmpeg believes it.

FFmpeg makes an entry of 24 bytes for every sample that a header counts, and once more for every
edit that shows it, whether the file can hold so many or not: of 1 KB it makes gigabytes. So the
counts are added up first. Each sample takes a byte at least. Exempt is sound whose header counts
single values (one time of one tick for all), of which FFmpeg makes entries of 1024 and more.

The boxes are walked as FFmpeg walks them: it takes those of COUNTS at any depth, wherever it looks
into a box at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from flowprep.decode.bytestream import ByteStream
from flowprep.decode.structure import Box, boxes, missing_bytes
from flowprep.errors import ClipError

PARENTS = frozenset(
    b"moov moof trak traf mdia minf stbl edts mvex udta dinf wave ilst tref tapt iprp ipco sinf"
    b" schi jp2h strk grpl ----".split()
)
SPOILT = frozenset({b"free", b"hoov"})
"""Boxes that FFmpeg takes for a moov when they begin like one."""
COUNTS = frozenset({b"hdlr", b"stts", b"stsz", b"stz2", b"trun", b"elst"})
INSIDE = re.compile(b"|".join(COUNTS))
"""For what follows a sample description, at places that only its codec tells."""
MAX_DESCRIPTION_BYTES = 1 << 20
MAX_DEPTH = 12  # FFmpeg stops at 10
EDIT_BYTES = 12
MAX_EDITED = 2_000_000
"""Samples times edits that a small file may have; a large one as many as it has bytes."""
SOUND_LUMP = 1024
ONE_TICK = (1, 1)  # entries, ticks


@dataclass(kw_only=True)
class _Counts:
    """What one track, or all outside of tracks, counts."""

    samples: int = 0
    edits: int = 0
    kinds: set[bytes] = field(default_factory=set)
    is_lumped: bool = True  # one time of one tick

    def add(self, name: bytes, head: bytes, n_bytes: int) -> None:
        """The first 12 bytes of a box of COUNTS, and its length."""
        first, second, third = (int.from_bytes(head[at : at + 4], "big") for at in (4, 8, 12))
        if name in (b"stsz", b"stz2"):
            self.samples += second
        elif name == b"trun":
            self.samples += first
        elif name == b"elst":
            self.edits += min(first, n_bytes // EDIT_BYTES)  # FFmpeg takes no more than there are
        elif name == b"stts":
            self.is_lumped &= (first, third) == ONE_TICK
        else:
            self.kinds.add(head[8:12])

    @property
    def entries(self) -> int:
        is_sound = b"soun" in self.kinds and b"vide" not in self.kinds
        return self.samples // SOUND_LUMP if is_sound and self.is_lumped else self.samples


def check_claims(file: ByteStream, path: str, size_bytes: int) -> None:
    """Raise ClipError `too-large` when a header counts more than `size_bytes` can hold.

    `truncated` where the file ends early as well, `unsupported-codec` when the header is
    compressed, so that nobody can tell.
    """
    groups = [_Counts()]
    _walk(file, path, range(0, size_bytes), groups, groups[0])
    file.seek(0)
    n_entries = sum(counts.entries for counts in groups)
    if n_entries > size_bytes:
        cut = missing_bytes(path)
        raise ClipError(
            "truncated" if cut else "too-large",
            f"{path} lists {n_entries} frames in {size_bytes} bytes",
        )
    n_edited = sum(counts.entries * counts.edits for counts in groups)
    if n_edited > (most := max(MAX_EDITED, size_bytes)):
        message = f"{path} lists {n_edited} frames in its edits; allowed are {most}"
        raise ClipError("too-large", message)


def _walk(
    file: ByteStream,
    path: str,
    inside: range,
    groups: list[_Counts],
    counts: _Counts,
    depth: int = 0,
) -> None:
    """Add what the boxes in these bytes count to `counts`, and to a new group for every track."""
    for whole in boxes(file, inside.stop, inside.start):
        box = whole._replace(end=min(whole.end, inside.stop))
        if box.name in COUNTS:
            counts.add(box.name, _read(file, box.content, 16), box.end - box.content)
        elif box.name == b"stsd":
            _search(file, path, box, counts)
        elif box.name == b"cmov":
            message = f"{path}: the movie's header is compressed (cmov)"
            raise ClipError("unsupported-codec", message)
        elif (first := _first_child(file, box)) and depth < MAX_DEPTH:
            if box.name == b"trak":
                groups.append(_Counts())
            own = groups[-1] if box.name == b"trak" else counts
            _walk(file, path, range(first, box.end), groups, own, depth + 1)


def _read(file: ByteStream, start: int, n_bytes: int) -> bytes:
    file.seek(start)
    return file.read(n_bytes)


def _first_child(file: ByteStream, box: Box) -> int:
    """Where the boxes inside begin, 0 where FFmpeg looks for none."""
    if box.name in PARENTS:
        return box.content
    if box.name in SPOILT:
        return box.content if _read(file, box.content + 4, 4) in (b"mvhd", b"cmov") else 0
    if box.name == b"meta":  # FFmpeg begins with its handler, wherever that is
        head = _read(file, box.content, min(4096, box.end - box.content))
        at = next((at for at in range(4, len(head), 4) if head[at : at + 4] == b"hdlr"), 0)
        return box.content + at - 4 if at else 0
    return 0


def _search(file: ByteStream, path: str, box: Box, counts: _Counts) -> None:
    n_bytes = box.end - box.content
    if n_bytes > MAX_DESCRIPTION_BYTES:
        raise ClipError("too-large", f"{path} describes its frames in {n_bytes} bytes")
    data = _read(file, box.content, n_bytes)
    for found in INSIDE.finditer(data):
        counts.add(found.group(), data[found.end() : found.end() + 16], len(data))
