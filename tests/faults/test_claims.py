"""A small file that claims much costs little: milliseconds and megabytes, whatever it says."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from fenced import MIB, Answer, Fence, Limits
from movies import EXTENDS, FTYP, Movie, box, fragment, full, numbers, one_chunk, picture
from seeds import N_FRAMES, make_seed

from flowprep.config import Settings
from flowprep.decode import base
from flowprep.decode.pyav import PyAVDecoder
from flowprep.errors import REASONS, ClipError
from flowprep.run.stages import output_size
from flowprep.synth import Motion, render, write_video

LIMITS = Limits(wall_s=20, memory_bytes=1024 * MIB)
COUNTS = (10**6, 19 * 10**6, 80 * 10**6, 10**9, 2**32 - 1)


def gif(width: int, height: int, n_frames: int = 2) -> bytes:
    """Frames that draw one pixel each."""
    screen = b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + bytes(6)
    control = b"\x21\xf9\x04\0\x0a\0\0\0"
    frame = control + b"\x2c" + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\x02\x02\x44\1\0"
    return screen + frame * n_frames + b";"


def edited(n_edits: int, n_samples: int) -> bytes:
    """Each edit shows all samples."""
    return bytes(
        Movie(
            n_samples=n_samples,
            edits=full(b"elst", numbers(n_edits), numbers(n_samples, 0, 0x10000) * n_edits),
        )
    )


def packed(stated: int, content: bytes) -> bytes:
    """A movie header that is compressed."""
    inner = box(b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", numbers(stated), content))
    return FTYP + box(b"moov", inner)


HUGE_TABLE = one_chunk(10**9)["stsz"]


def mfra(count: int) -> bytes:
    """An index of so many fragments, and where it begins."""
    tfra = full(b"tfra", numbers(1, 0, count), bytes(11))
    return box(b"mfra", tfra, full(b"mfro", numbers(8 + len(tfra) + 16)))


def attacks() -> Iterator[tuple[str, bytes]]:
    for count in COUNTS:
        yield f"samples {count}", bytes(Movie(tables=one_chunk(count)))
        yield (
            f"late handler {count}",
            bytes(
                Movie(
                    tables=one_chunk(count) | {"hdlr": full(b"hdlr", bytes(4), b"vide", bytes(13))},
                    handler=b"soun",
                )
            ),
        )
        yield f"run {count}", bytes(Movie(more=EXTENDS, fragments=fragment(count)))
        yield f"times {count}", bytes(Movie(tables={"stts": full(b"stts", numbers(count, 1, 1))}))
        yield f"time of {count}", bytes(Movie(tables={"stts": full(b"stts", numbers(1, count, 1))}))
        yield f"offsets {count}", bytes(Movie(tables={"ctts": full(b"ctts", numbers(1, count, 1))}))
        yield (
            f"offsets of {count}",
            bytes(Movie(tables={"ctts": full(b"ctts", numbers(count, 1, 1))})),
        )
        yield f"fragments {count}", bytes(Movie(more=EXTENDS, fragments=fragment(2) + mfra(count)))
        yield f"chunks {count}", bytes(Movie(tables={"stco": full(b"stco", numbers(count, 36))}))
        yield f"keys {count}", bytes(Movie(tables={"stss": full(b"stss", numbers(count, 1))}))
    yield "runs", bytes(Movie(more=EXTENDS, fragments=fragment(10**6) * 100))
    yield "free moov", bytes(Movie(tables=one_chunk(19 * 10**6))).replace(b"moov", b"free")
    yield "junk first", box(b"abcd", bytes(8)) + bytes(Movie(tables=one_chunk(19 * 10**6)))
    yield "edits", edited(1000, 2000)
    yield "many edits", edited(50_000, 20_000)
    yield "packed header", packed(300_000_000, zlib.compress(bytes(300_000_000), 9))
    yield "packed header that lies", packed(0xFFFFFFF0, b"x" * 60)
    yield "tracks", FTYP + box(b"moov", box(b"trak") * 50_000)
    yield "pixels", bytes(Movie(size=(65535, 65535)))
    yield "screen", gif(65535, 65535)
    yield "strip", gif(16384, 2)


NAMES = [name for name, _ in attacks()]


def judged(case: tuple[bytes, Path]) -> str:
    """The reason; or that all frames came, resized as extract does."""
    data, path = case
    path.write_bytes(data)
    return _decoded(PyAVDecoder(), path)


def _decoded(decoder: PyAVDecoder, path: Path) -> str:
    try:
        media = decoder.probe(str(path))
        output_size(media, Settings())
        n_frames = sum(1 for _ in decoder.frames(str(path), media, np.arange(media.n_frames)))
    except ClipError as error:
        return error.reason
    return f"{n_frames} frames"


def opened(case: tuple[bytes, Path]) -> int:
    """FFmpeg alone, without our looking first."""
    data, path = case
    path.write_bytes(data)
    with av.open(str(path)) as container:
        return container.streams.video[0].frames


def ready() -> None:
    import cv2

    cv2.setNumThreads(1)
    av.logging.set_level(None)


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[bytes], Answer]]:
    path = tmp_path_factory.mktemp("claims") / "case"
    with Fence(judged, ready, LIMITS) as fence:
        fence.ask((gif(64, 48), path))  # loads what is loaded once
        yield lambda data: fence.ask((data, path))


def test_a_movie_written_by_hand_is_a_sample(ask: Callable[[bytes], Answer]) -> None:
    """Otherwise the refusals below would prove nothing."""
    assert ask(bytes(Movie(n_samples=3))).value == "3 frames"
    assert ask(edited(2, 3)).value == "6 frames"
    assert ask(bytes(Movie(more=EXTENDS, fragments=fragment(0)))).value == "2 frames"


def test_the_attack_works_where_nobody_looks_first(tmp_path: Path) -> None:
    with Fence(opened, ready, LIMITS) as fence:
        answer = fence.ask((bytes(Movie(tables=one_chunk(5 * 10**6))), tmp_path / "case"))
    assert answer.value == 5 * 10**6
    assert answer.peak_mib > 100


@pytest.mark.parametrize(("name", "data"), list(attacks()), ids=NAMES)
def test_a_claim_costs_little(name: str, data: bytes, ask: Callable[[bytes], Answer]) -> None:
    answer = ask(data)
    expected = ("too-large", "truncated", "decode-error", "unsupported-codec", "2 frames")
    assert answer.value in expected, (name, answer)
    assert answer.cpu_s < 0.5, name
    assert answer.peak_mib < 64, name


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (bytes(Movie(tables=one_chunk(10**9))), "too-large"),
        (bytes(Movie(tables=one_chunk(10**9)))[:-40], "truncated"),
        (bytes(Movie(more=EXTENDS, fragments=fragment(10**6))), "too-large"),
        (edited(1000, 2000), "too-large"),
        (packed(100, zlib.compress(bytes(100))), "unsupported-codec"),
        (gif(65535, 65535), "too-large"),
        (gif(16384, 2), "too-large"),
        (gif(8192, 128), "2 frames"),
    ],
    ids=["samples", "cut", "runs", "edits", "packed", "screen", "strip", "wide"],
)
def test_the_reason_is_told(data: bytes, expected: str, ask: Callable[[bytes], Answer]) -> None:
    assert ask(data).value == expected


AVI_PLACES = {
    "frames of the file": (b"avih", 4 + 16),
    "frames of the stream": (b"strh", 4 + 32),
    "bytes of a frame": (b"strh", 4 + 36),
    "rate": (b"strh", 4 + 24),
    "start": (b"strh", 4 + 28),
    "width": (b"strf", 4 + 4),
    "chunk": (b"00dc", 0),
    "list": (b"movi", -8),
}
MKV_PLACES = {
    "duration": (b"\x44\x89\x88", 3, 8),
    "width": (b"\xb0\x81", 1, 1),
    "time of a cluster": (b"\xe7\x81", 2, 1),
    "ticks": (b"\x2a\xd7\xb1\x83", 4, 3),
}


@pytest.mark.parametrize("value", [10**6, 10**9, 2**31 - 1, 2**32 - 1])
@pytest.mark.parametrize("place", AVI_PLACES)
def test_an_avi_that_claims_much(
    place: str, value: int, ask: Callable[[bytes], Answer], tmp_path: Path
) -> None:
    name, offset = AVI_PLACES[place]
    data = bytearray(make_seed("mjpeg.avi", tmp_path).read_bytes())
    at = data.index(name) + len(name) + offset
    data[at : at + 4] = value.to_bytes(4, "little")
    _is_cheap(ask(bytes(data)))


@pytest.mark.parametrize("place", MKV_PLACES)
def test_a_matroska_that_claims_much(
    place: str, ask: Callable[[bytes], Answer], tmp_path: Path
) -> None:
    name, offset, width = MKV_PLACES[place]
    data = bytearray(make_seed("h264.mkv", tmp_path).read_bytes())
    at = data.index(name) + offset
    data[at : at + width] = b"\x7e" + b"\xff" * (width - 1)
    _is_cheap(ask(bytes(data)))


def _is_cheap(answer: Answer) -> None:
    assert answer.value in REASONS or answer.value == f"{N_FRAMES} frames", answer
    assert answer.cpu_s < 0.5
    assert answer.peak_mib < 64


def test_a_stream_that_grows_midway_stays_within_the_limits(tmp_path: Path) -> None:
    """64x48, then 128x96: the decoder refuses what no header has announced."""
    path = make_seed("grows.ts", tmp_path)
    assert PyAVDecoder().probe(str(path)).n_frames > N_FRAMES
    decoder = PyAVDecoder(limits=base.Limits(max_pixels=64 * 48))
    assert _decoded(decoder, path) in ("too-large", "decode-error")


def test_a_picture_that_looks_like_a_claim_is_none(ask: Callable[[bytes], Answer]) -> None:
    """Covers and the frames themselves hold any bytes, also those of names."""
    names = b"stsz", b"trun", b"cmov", b"elst", b"moov", b"trak"
    bait = b"".join(numbers(40) + name + b"\x7f" * 32 for name in names)
    cover = box(b"ilst", box(b"covr", box(b"data", bytes(8), bait)))
    meta = full(b"meta", full(b"hdlr", bytes(4), b"mdir", bytes(13)), cover)
    movie = Movie(more=box(b"udta", meta), data=picture() + bait)
    assert ask(bytes(movie)).value == "2 frames"
    hidden = full(b"meta", full(b"hdlr", bytes(4), b"mdir", bytes(13)), box(b"trak", HUGE_TABLE))
    assert ask(bytes(Movie(more=box(b"udta", hidden)))).value == "too-large"


def test_sound_that_counts_single_values_is_no_claim(tmp_path: Path) -> None:
    """Old movies count every value of compressed sound: many more than there are bytes."""
    path = tmp_path / "a.mov"
    write_video(path, render(Motion(), 4, 48, 64), 25)
    count, data = 20 * path.stat().st_size, path.read_bytes()
    at = data.index(b"moov") - 4
    sound = bytes(Movie(tables=one_chunk(count), handler=b"soun"))
    track = sound[sound.index(b"trak") - 4 :]
    size = int.from_bytes(data[at : at + 4], "big") + len(track)
    path.write_bytes(data[:at] + numbers(size) + data[at + 4 :] + track)
    assert PyAVDecoder().probe(str(path)).n_frames == 4
    path.write_bytes(path.read_bytes().replace(numbers(1, count, 1), numbers(1, count, 2)))
    with pytest.raises(ClipError, match=f"lists {count + 4} frames"):
        PyAVDecoder().probe(str(path))


def test_times_have_a_limit(tmp_path: Path) -> None:
    """Two frames of a second each: the limit is 7 days, or what is given."""
    path = tmp_path / "a.mp4"
    week = int(base.Limits().max_duration_s)
    for ticks, timescale in ((week // 2 + 1, 1), (2**31 - 1, 2)):
        table: dict[str, Any] = {"stts": full(b"stts", numbers(1, 2, ticks))}
        path.write_bytes(bytes(Movie(tables=table, timescale=timescale)))
        with pytest.raises(ClipError, match="claims to last") as caught:
            PyAVDecoder().probe(str(path))
        assert caught.value.reason == "too-large"
    path.write_bytes(bytes(Movie(tables={}, timescale=1)))
    assert PyAVDecoder(limits=base.Limits(max_duration_s=2)).probe(str(path)).n_frames == 2
    with pytest.raises(ClipError, match="claims to last 2 s; allowed are 1"):
        PyAVDecoder(limits=base.Limits(max_duration_s=1)).probe(str(path))
