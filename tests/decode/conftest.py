"""Makers of small videos, and the decoder under test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import av
import numpy as np
import pytest

from flowprep.decode.pyav import PyAVDecoder
from flowprep.errors import ClipError
from flowprep.records import Media

MakeVideo = Callable[..., Path]
MATRIX_AFTER_TYPE = 4 + 40  # bytes from the name of a tkhd box to its display matrix


@pytest.fixture
def decoder() -> PyAVDecoder:
    return PyAVDecoder()


def _picture(width: int, height: int, number: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 3 + number * 5, y * 2 + number * 3, x + y + number * 7], -1).astype(
        np.uint8
    )


def _encode(
    path: Path,
    codec: str = "libx264",
    *,
    n: int = 30,
    width: int = 64,
    height: int = 48,
    pix_fmt: str = "yuv420p",
    rate: int = 30,
    pts: list[int] | None = None,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    format: str | None = None,
    frames: list[av.VideoFrame] | None = None,
    tags: dict[str, int] | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    with av.open(str(path), "w", format=format, options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = Fraction(1, rate)
        stream.options = options or {}
        stream.metadata.update(metadata or {})
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        if frames is None:
            frames = [
                av.VideoFrame.from_ndarray(_picture(width, height, i), "rgb24").reformat(
                    format=pix_fmt
                )
                for i in range(n)
            ]
        for i, frame in enumerate(frames):
            frame.pts, frame.time_base = (pts or range(len(frames)))[i], Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture
def encode(tmp_path: Path) -> MakeVideo:
    """encode("a.mp4", codec, n=..., ...) writes a video of moving gradients."""

    def make(name: str, codec: str = "libx264", **options: object) -> Path:
        return _encode(tmp_path / name, codec, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture
def solid(encode: MakeVideo) -> MakeVideo:
    """solid("a.mkv", pix_fmt, planes, ...) writes two frames of constant planes, losslessly."""

    def make(name: str, pix_fmt: str, planes: tuple[int, ...], **options: object) -> Path:
        width, height = options.get("width", 64), options.get("height", 48)
        frames = []
        for _ in range(2):
            frame = av.VideoFrame(width, height, pix_fmt)
            for plane, value in zip(frame.planes, planes, strict=True):
                wide = np.uint16 if value > 255 or "10" in pix_fmt else np.uint8
                count = plane.buffer_size // np.dtype(wide).itemsize
                plane.update(np.full(count, value, wide).tobytes())
            frames.append(frame)
        return encode(
            name,
            "ffv1",
            **{"options": {"level": "3", "strict": "-2"}, **options},
            pix_fmt=pix_fmt,
            frames=frames,
        )

    return make


@pytest.fixture
def turn(tmp_path: Path) -> Callable[[Path, tuple[int, int, int, int]], Path]:
    """A copy of an mp4 with (a, b, c, d) as its display matrix."""

    def make(source: Path, matrix: tuple[int, int, int, int]) -> Path:
        data = bytearray(source.read_bytes())
        at = data.index(b"tkhd") + MATRIX_AFTER_TYPE
        a, b, c, d = (value << 16 for value in matrix)
        words = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
        data[at : at + 36] = b"".join(w.to_bytes(4, "big", signed=True) for w in words)
        path = tmp_path / f"turned_{'_'.join(map(str, matrix))}.mp4"
        path.write_bytes(data)
        return path

    return make


def _reason(decoder: PyAVDecoder, path: Path) -> str:
    """What probing and then taking every frame ends in: a reason, or "" when all is well."""
    try:
        media = decoder.probe(str(path))
        given = sum(1 for _ in decoder.frames(str(path), media, np.arange(media.n_frames)))
    except ClipError as error:
        return error.reason
    assert given == media.n_frames
    return ""


@pytest.fixture
def reason(decoder: PyAVDecoder) -> Callable[[Path], str]:
    return lambda path: _reason(decoder, path)


@pytest.fixture
def take(decoder: PyAVDecoder) -> Callable[..., np.ndarray]:
    """take(path[, indices]) probes and gives the frames stacked, all of them by default."""

    def run(path: Path, index: list[int] | None = None, media: Media | None = None) -> np.ndarray:
        media = media or decoder.probe(str(path))
        wanted = np.arange(media.n_frames) if index is None else np.array(index)
        return np.stack(list(decoder.frames(str(path), media, wanted)))

    return run


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A web server on this machine that records every request."""
    requests: list[str] = []

    class Recorder(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    httpd = HTTPServer(("127.0.0.1", 0), Recorder)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}", requests
    httpd.shutdown()
    httpd.server_close()
    thread.join()
