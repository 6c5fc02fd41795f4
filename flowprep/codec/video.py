"""Frames as one video stream: what the video codecs share.

Keyframes stand exactly at every `GOP`-th frame and nothing is reordered, so packet i is frame i and
a window decodes from the keyframe before it. Encoders run on one thread whatever `threads` says:
with more, x264 writes other bytes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from flowprep.codec.base import Kind
from flowprep.codec.pixels import (
    PRIMARIES_BT709,
    TRANSFER_BT709,
    Array,
    PixelFormat,
    check_frames,
)
from flowprep.codec.window import read_window
from flowprep.errors import ClipError
from flowprep.records import F64

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.bitstream import BitStreamFilterContext
    from av.container import OutputContainer
    from av.packet import Packet

MUXERS = {"mp4": "mp4", "mkv": "matroska"}
TICKS_PER_S = {"mp4": 90_000, "mkv": 1_000}  # Matroska counts milliseconds
NOMINAL_FPS = 25  # sets the level and the last frame's duration; the times are those given


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

    def open_writer(self, path: Path, height: int, width: int, threads: int = 1) -> VideoWriter:
        return VideoWriter(self, path, height, width)

    def read(self, data: bytes, start: int = 0, stop: int | None = None) -> np.ndarray:
        return read_window(self, data, start, stop)


class VideoWriter:
    """Encodes and muxes frame by frame; holds no more than the encoder does."""

    def __init__(self, codec: VideoCodec, path: Path, height: int, width: int) -> None:
        self._codec, self._path = codec, path
        self._height, self._width = height, width
        self._pixels = codec.pixel_format(height, width)
        self._time_base = Fraction(1, TICKS_PER_S[codec.suffix])
        self._last_pts = -1
        with self._errors():
            self._container = _create(codec, path)
            self._stream = self._add_stream()
            self._filter = _packet_filter(codec, self._stream)

    def write(self, frames: np.ndarray, pts_s: F64) -> None:
        check_frames(self._codec.kind, frames, self._height, self._width, pts_s)
        with self._errors():
            for frame, time_s in zip(frames, pts_s.tolist(), strict=True):
                self._mux(self._stream.encode(self._video_frame(frame, time_s)))

    def close(self) -> None:
        if self._last_pts < 0:
            raise ClipError("encode-error", f"{self._path.name}: no frame was written")
        with self._errors():
            self._mux(self._stream.encode(None))
            self._container.close()

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
            self._container.close()
        self._path.unlink(missing_ok=True)

    def _add_stream(self) -> VideoStream:
        stream = self._container.add_stream(
            self._codec.encoder, rate=NOMINAL_FPS, options=self._codec.options
        )
        stream.width, stream.height = self._width, self._height
        stream.pix_fmt = self._pixels.name
        stream.time_base = self._time_base
        context = stream.codec_context
        context.time_base = self._time_base
        context.thread_count = 1
        context.color_range = self._pixels.color_range
        context.colorspace = self._pixels.matrix
        context.color_primaries = PRIMARIES_BT709
        context.color_trc = TRANSFER_BT709
        self._container.start_encoding()
        return stream

    def _video_frame(self, array: Array, time_s: float) -> VideoFrame:
        frame = self._pixels.pack(array)
        frame.color_range, frame.colorspace = self._pixels.color_range, self._pixels.matrix
        frame.time_base = self._time_base
        frame.pts = max(round(time_s / self._time_base), self._last_pts + 1)
        self._last_pts = frame.pts
        return frame

    def _mux(self, packets: list[Packet]) -> None:
        for packet in packets:
            self._container.mux(self._filter.filter(packet) if self._filter else packet)

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


def _create(codec: VideoCodec, path: Path) -> OutputContainer:
    import av

    return av.open(
        f"file:{path}",
        "w",
        format=MUXERS[codec.suffix],
        container_options={"fflags": "+bitexact"},
    )


def _packet_filter(codec: VideoCodec, stream: VideoStream) -> BitStreamFilterContext | None:
    from av.bitstream import BitStreamFilterContext

    return BitStreamFilterContext(codec.packet_filter, stream) if codec.packet_filter else None
