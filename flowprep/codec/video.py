"""Frames as one video stream: what the video codecs share.

Keyframes stand exactly at every `GOP`-th frame and nothing is reordered, so packet i is frame i and
a window decodes from the keyframe before it. Encoders run on one thread whatever `threads` says:
with more, x264 writes other bytes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np

from flowprep.codec.base import Kind, Region
from flowprep.codec.pixels import (
    PRIMARIES_BT709,
    TRANSFER_BT709,
    PixelFormat,
    check_frames,
)
from flowprep.codec.window import iter_window, read_window
from flowprep.errors import ClipError
from flowprep.records import F64

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.bitstream import BitStreamFilterContext
    from av.packet import Packet

MUXERS = {"mp4": "mp4", "mkv": "matroska"}
MUXER_OPTIONS = {"mp4": {"movflags": "+faststart"}, "mkv": {}}  # plays from a pipe
TICKS_PER_S = {"mp4": 90_000, "mkv": 1_000}  # Matroska counts milliseconds
LONE_FRAME_FPS = 25  # gives a clip of one frame a duration


@dataclass(frozen=True, kw_only=True)
class VideoCodec:
    """A codec that stores a video. Subclasses give the encoder, its options and pixel formats."""

    name: str
    kind: Kind
    suffix: str = "mp4"
    lossless: bool = False
    encoder: str = ""  # FFmpeg's name
    decoder: str = ""
    packet_filter: str = ""  # an FFmpeg bitstream filter that every packet passes

    @property
    @abstractmethod
    def params(self) -> str:
        """Recorded in each sample."""

    @property
    @abstractmethod
    def options(self) -> dict[str, str]:
        """Options of the encoder."""

    @abstractmethod
    def pixel_format(self, height: int, width: int) -> PixelFormat:
        """How frames of this size are stored."""

    def check_packet(self, packet: Packet) -> None:
        """Raises ValueError when a packet carries a checksum that does not fit."""

    def open_writer(self, path: Path, height: int, width: int, threads: int = 1) -> VideoWriter:
        return VideoWriter(self, path, height, width)

    def frames(
        self,
        data: bytes | BinaryIO,
        start: int = 0,
        stop: int | None = None,
        region: Region | None = None,
    ) -> Iterator[np.ndarray]:
        return iter_window(self, data, start, stop, region)

    def read(self, data: bytes | BinaryIO, start: int = 0, stop: int | None = None) -> np.ndarray:
        return read_window(self, data, start, stop)


@dataclass
class _Held:
    """A frame that waits for the next one's time, which tells its duration in ticks."""

    frame: VideoFrame
    pts: int
    time_s: float


class VideoWriter:
    """Encodes frame after frame; memory holds the one kept back and what the encoder needs."""

    def __init__(self, codec: VideoCodec, path: Path, height: int, width: int) -> None:
        self._codec, self._path = codec, path
        self._height, self._width = height, width
        self._pixels = codec.pixel_format(height, width)
        self._time_base = Fraction(1, TICKS_PER_S[codec.suffix])
        self._held: _Held | None = None
        self._last_s, self._last_ticks = 1 / LONE_FRAME_FPS, 0
        self._output: _Output | None = None

    def write(self, frames: np.ndarray, pts_s: F64) -> None:
        check_frames(self._codec.kind, frames, self._height, self._width, pts_s)
        with self._errors():
            for frame, time_s in zip(frames, pts_s.tolist(), strict=True):
                self._push(self._pixels.pack(frame), time_s)

    def close(self) -> None:
        if self._held is None:
            raise ClipError("encode-error", f"{self._path.name}: no frame was written")
        with self._errors():
            self._encode(self._held)
            self._started().close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._abort()

    def _abort(self) -> None:
        import av

        with suppress(av.FFmpegError, OSError):
            if self._output is not None:
                self._output.container.close()
        self._path.unlink(missing_ok=True)

    def _push(self, frame: VideoFrame, time_s: float) -> None:
        pts = round(time_s / self._time_base)
        if self._held is not None:
            pts = max(pts, self._held.pts + 1)
            self._last_s, self._last_ticks = time_s - self._held.time_s, pts - self._held.pts
            self._encode(self._held)
        frame.pts, frame.time_base = pts, self._time_base
        frame.color_range, frame.colorspace = self._pixels.color_range, self._pixels.matrix
        self._held = _Held(frame, pts, time_s)

    def _encode(self, held: _Held) -> None:
        duration = self._last_ticks or round(self._last_s / self._time_base)
        self._started().encode(held.frame, duration)

    def _started(self) -> _Output:
        """The output, opened once the first interval has told the nominal frame rate."""
        if self._output is None:
            fps = Fraction(1 / max(self._last_s, 1e-3)).limit_denominator(1001)
            size = self._height, self._width
            self._output = _Output(self._codec, self._path, self._pixels, size, fps)
        return self._output

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """FFmpeg's errors become OSError where the system refused, ClipError otherwise."""
        import av

        try:
            yield
        except av.FFmpegError as error:
            if isinstance(error, OSError):
                raise OSError(error.errno, error.strerror, str(self._path)) from error
            raise ClipError("encode-error", f"{self._path.name}: {error}") from error


class _Output:
    """An open container with its encoder."""

    def __init__(
        self,
        codec: VideoCodec,
        path: Path,
        pixels: PixelFormat,
        size: tuple[int, int],
        fps: Fraction,
    ) -> None:
        import av

        self.container = av.open(
            f"file:{path}",
            "w",
            format=MUXERS[codec.suffix],
            container_options={"fflags": "+bitexact", **MUXER_OPTIONS[codec.suffix]},
        )
        stream = self.container.add_stream(codec.encoder, rate=fps, options=codec.options)
        self._stream = cast("VideoStream", stream)
        _configure(self._stream, pixels, size, Fraction(1, TICKS_PER_S[codec.suffix]))
        self.container.start_encoding()
        self._filter = _packet_filter(codec, self._stream)
        self._durations: deque[int] = deque()  # of the frames in the encoder

    def encode(self, frame: VideoFrame, duration: int) -> None:
        self._durations.append(duration)
        self._mux(self._stream.encode(frame))

    def close(self) -> None:
        self._mux(self._stream.encode(None))
        self.container.close()

    def _mux(self, packets: list[Packet]) -> None:
        """Packets come in the order of the frames; encoders lose the durations."""
        for packet in packets:
            for filtered in self._filter.filter(packet) if self._filter else [packet]:
                filtered.duration = self._durations.popleft()
                self.container.mux(filtered)


def _configure(
    stream: VideoStream, pixels: PixelFormat, size: tuple[int, int], time_base: Fraction
) -> None:
    context = stream.codec_context
    context.height, context.width = size
    context.pix_fmt = pixels.name
    stream.time_base = context.time_base = time_base
    context.thread_count = 1
    context.color_range, context.colorspace = pixels.color_range, pixels.matrix
    context.color_primaries, context.color_trc = PRIMARIES_BT709, TRANSFER_BT709


def _packet_filter(codec: VideoCodec, stream: VideoStream) -> BitStreamFilterContext | None:
    from av.bitstream import BitStreamFilterContext

    return BitStreamFilterContext(codec.packet_filter, stream) if codec.packet_filter else None
