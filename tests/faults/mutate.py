"""Bytes damaged at random: by anyone's accident, and by someone who knows the container."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

Mutation = Callable[[bytearray, bytes, random.Random], None]
"""Changes the first argument; the second is another file to take from."""

ISO = (
    b"ftyp moov mvhd trak tkhd edts elst mdia mdhd hdlr minf vmhd dinf dref stbl stsd stts stss"
    b" ctts stsc stsz stz2 stco co64 mdat moof mfhd traf tfhd tfdt trun mvex trex sidx mfra udta"
    b" meta avc1 avcC hev1 hvcC vp09 vpcC av01 av1C pasp colr mp4v esds url  alis free cslg sbgp"
)
RIFF = b"RIFF LIST hdrl avih strl strh strf movi idx1 indx odml dmlh JUNK 00dc 01wb vids"
OTHER = b"OggS FLV\x01 GIF89a BBCD theora fishead"
EBML = (
    "1a45dfa3 4286 4282 18538067 114d9b74 1549a966 2ad7b1 4489 1654ae6b ae d7 83 86 e0 b0 ba 54b0"
    " 54ba 55b0 23e383 63a2 1f43b675 e7 a3 a0 a1 9b 1c53bb6b bb b3 b7 f1 1941a469 61a7 1043a770"
    " 6d80 6240 5034"
)
STARTS = (
    "000001b3 000001b8 00000100 000001ba 000001bb 000001e0 0000010f 00000120 00000167 00000168"
    " 00000165 000001b6 47401110 47500010 47010010 3026b275 a1dcab8c ffc0 ffd8ffdb 9d012a 498342"
    " 2c000000 21f904"
)
NAMES = [
    *(name.ljust(4) for name in ISO.split(b" ") if name),
    *RIFF.split(),
    *OTHER.split(),
    *(bytes.fromhex(name) for name in (EBML + STARTS).split()),
]
PLACES = re.compile(b"|".join(re.escape(n) for n in sorted(NAMES, key=len, reverse=True)), re.S)
NUMBERS = [
    *(0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 100_000),
    *(10**9, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, 10**12, 2**62, 2**63 - 1, 2**63, 2**64 - 1),
]


def mutate(data: bytes, other: bytes, rng: random.Random) -> tuple[str, bytes]:
    """(what was done, the damaged bytes): one to four mutations one after the other."""
    damaged, done = bytearray(data), []
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        mutation = rng.choice(MUTATIONS)
        if damaged:
            mutation(damaged, other, rng)
            done.append(mutation.__name__.strip("_"))
    return "+".join(done), bytes(damaged)


def _range(size: int, rng: random.Random) -> slice:
    """Somewhere, mostly short."""
    start = rng.randrange(size)
    return slice(start, min(size, start + rng.choice((1, 4, 16, 188, 1000, size))))


def _flip_anywhere(data: bytearray, other: bytes, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 2, 8, 40))):
        data[rng.randrange(len(data))] ^= rng.randrange(1, 256)


def _flip_header(data: bytearray, other: bytes, rng: random.Random) -> None:
    """In the first or the last bytes, where containers have their tables."""
    reach = min(len(data), rng.choice((64, 400, 4000)))
    origin = rng.choice((0, len(data) - reach))
    for _ in range(rng.choice((1, 1, 3, 12))):
        data[origin + rng.randrange(reach)] ^= rng.randrange(1, 256)


def _truncate(data: bytearray, other: bytes, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _zero(data: bytearray, other: bytes, rng: random.Random) -> None:
    where = _range(len(data), rng)
    data[where] = bytes(where.stop - where.start)


def _noise(data: bytearray, other: bytes, rng: random.Random) -> None:
    where = _range(len(data), rng)
    data[where] = rng.randbytes(where.stop - where.start)


def _remove(data: bytearray, other: bytes, rng: random.Random) -> None:
    del data[_range(len(data), rng)]


def _repeat(data: bytearray, other: bytes, rng: random.Random) -> None:
    where = _range(len(data), rng)
    data[where.start : where.start] = data[where] * rng.choice((1, 1, 2, 10))


def _move(data: bytearray, other: bytes, rng: random.Random) -> None:
    where = _range(len(data), rng)
    part = data[where]
    del data[where]
    at = rng.randrange(len(data) + 1)
    data[at:at] = part


def _splice(data: bytearray, other: bytes, rng: random.Random) -> None:
    """The head of one file, the tail of the other."""
    data[rng.randrange(len(data)) :] = other[rng.randrange(len(other)) :]


def _insert_other(data: bytearray, other: bytes, rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = other[_range(len(other), rng)]


def _append_other(data: bytearray, other: bytes, rng: random.Random) -> None:
    data += other


def _places(data: bytes) -> list[tuple[int, int]]:
    return [match.span() for match in PLACES.finditer(data)]


def _number(data: bytearray, other: bytes, rng: random.Random) -> None:
    """A number near the name of a box, chunk or element: a size, a count, a time, dimensions."""
    places = _places(data)
    start, end = rng.choice(places) if places else (0, 0)
    width = rng.choice((1, 2, 4, 4, 4, 8))
    at = rng.choice((start - width, end, end + rng.randrange(48)))
    if 0 <= at <= len(data) - width:
        order = rng.choice(("big", "little"))
        old = int.from_bytes(data[at : at + width], order)
        value = rng.choice((*NUMBERS, old + 1, old - 1, old * 2, rng.getrandbits(64)))
        data[at : at + width] = (value % 256**width).to_bytes(width, order)


def _rename(data: bytearray, other: bytes, rng: random.Random) -> None:
    places = _places(data)
    start, end = rng.choice(places) if places else (0, min(4, len(data)))
    data[start:end] = rng.choice([n for n in NAMES if len(n) == end - start] or [b""])


def _drop_element(data: bytearray, other: bytes, rng: random.Random) -> None:
    """From one name up to another; with a box's size in front of it."""
    places = _places(data)
    if len(places) > 1:
        at = rng.randrange(len(places) - 1)
        del data[max(0, places[at][0] - 4) : max(0, places[at + 1][0] - 4)]


def _double_element(data: bytearray, other: bytes, rng: random.Random) -> None:
    places = _places(data)
    if len(places) > 1:
        at = rng.randrange(len(places) - 1)
        start, end = (max(0, places[i][0] - 4) for i in (at, at + 1))
        data[start:start] = data[start:end] * rng.choice((1, 3, 50))


MUTATIONS: list[Mutation] = [
    *(_flip_anywhere, _flip_header, _flip_header, _truncate, _zero, _noise, _remove, _repeat),
    *(_move, _splice, _insert_other, _append_other, _rename, _drop_element, _double_element),
    *(_number, _number, _number, _number, _number),
]
