"""Open a local video as a byte stream, so that nothing but its own bytes can be read.

Three locks, each enough by itself: the container is fed from an open file object (FFmpeg never
learns a path to resolve others against), only the containers of `FORMATS` are recognised (no
playlist, manifest, session description, image sequence or subtitle), and every further opening
that a demuxer asks for is refused by `protocol_whitelist` and by `io_open`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import dropwhile
from typing import TYPE_CHECKING, NoReturn

from flowprep.decode.base import Limits
from flowprep.decode.bytestream import ByteStream, open_bytes
from flowprep.decode.claims import check_claims
from flowprep.decode.structure import describe_damage
from flowprep.errors import ClipError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

FORMATS = ("mov", "matroska", "avi", "gif", "mpegts", "mpeg", "flv", "asf", "ogg")
"""FFmpeg demuxers that may be used. `mov` also reads mp4, m4v and 3gp, `matroska` also webm."""

PROTOCOLS = "none"
BUFFER_BYTES = 256 * 1024
JOINED_MIDWAY = frozenset({"mpegts", "mpeg"})
"""Containers of broadcasts, which a capture may enter between two key frames."""
FOREIGN_ERRORS = (
    *(ValueError, RuntimeError, LookupError, ArithmeticError, AssertionError, MemoryError),
)
"""What PyAV and NumPy raise over the data of a file, beside FFmpeg's own errors."""
STILLS = ("attached_pic", "still_image", "timed_thumbnails")


@dataclass(frozen=True, kw_only=True)
class OpenVideo:
    """An open container and the video stream that is read from it."""

    path: str
    container: InputContainer
    stream: VideoStream
    max_frames: int

    @property
    def context(self) -> VideoCodecContext:
        return self.stream.codec_context

    @property
    def format(self) -> str:
        """The demuxer's first name: one of FORMATS."""
        return self.container.format.name.split(",")[0]

    @property
    def codec(self) -> str:
        """The coding standard (`av1`), whichever library decodes it (`libdav1d`)."""
        return str(self.context.codec.canonical_name)

    def packets(self) -> Iterator[Packet]:
        """The stream's packets from where the container stands.

        Without the empty ones (AVI writes them for a repeated frame), and in a broadcast without
        those before the first key frame, which cannot be decoded.
        """
        packets = (p for p in self.container.demux(self.stream) if p.size)
        if self.format in JOINED_MIDWAY:
            return dropwhile(lambda p: not p.is_keyframe, packets)
        return packets

    @property
    def frame_ticks(self) -> float:
        """The average frame time in ticks of the stream's time base, 1 when unknown."""
        rate, base = self.stream.average_rate or self.stream.base_rate, self.stream.time_base
        return float(1 / (rate * base)) if rate and base else 1.0


def _refuse(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise PermissionError(f"the video asks to open {url!r}, which is not allowed")


@contextmanager
def clip_errors(path: str) -> Iterator[None]:
    """Turn whatever PyAV or the file system raises into a ClipError."""
    import av

    try:
        yield
    except av.error.FFmpegError as error:
        raise ClipError("decode-error", f"{path}: {error.strerror or error}") from error
    except OSError as error:
        raise ClipError("unreadable", f"{path}: {error}") from error
    except FOREIGN_ERRORS as error:
        raise ClipError("decode-error", f"{path}: {error!r}") from error


def pyav_major() -> int:
    """PyAV's major version, where its behaviour differs."""
    import av

    return int(av.__version__.split(".")[0])


def _stream_options(limits: Limits) -> dict[str, str]:
    """What holds while PyAV looks into the streams. Up to 16 it crashes on any such option when
    it then finds more streams than the header announced; FFmpeg's own bound (2**28 pixels) stays.
    """
    return {"max_pixels": str(limits.max_pixels)} if pyav_major() >= 17 else {}


def _open_container(
    file: ByteStream, path: str, limits: Limits, demuxer_options: dict[str, str]
) -> InputContainer:
    import av

    locks = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": PROTOCOLS}
    try:
        return av.open(
            file,
            mode="r",
            options=_stream_options(limits),
            container_options={**locks, **demuxer_options},
            buffer_size=BUFFER_BYTES,
            metadata_errors="replace",
            io_open=_refuse,
        )
    except av.error.FFmpegError as error:
        damage = describe_damage(path)
        if damage is not None:
            raise ClipError(damage[0], f"{path}: {damage[1]}") from error
        message = f"{path} is not a video of a known container ({error.strerror})"
        raise ClipError("not-a-video", message) from error


def _video_stream(container: InputContainer, path: str) -> VideoStream:
    streams = [s for s in container.streams.video if not _is_still(s)]
    if not streams:
        kinds = ", ".join(s.type for s in container.streams) or "none"
        raise ClipError("no-video-stream", f"{path} has no video stream (streams: {kinds})")
    stream = streams[0]
    if stream.codec_context is None:
        raise ClipError("unsupported-codec", f"{path}: no decoder for its video codec")
    return stream


def _is_still(stream: VideoStream) -> bool:
    from av.stream import Disposition

    stills = Disposition(0)
    for name in STILLS:
        stills |= getattr(Disposition, name)
    return bool(Disposition(stream.disposition) & stills)


def _claimed_size(stream: VideoStream, path: str, limits: Limits) -> tuple[int, int]:
    """The header's width and height. FFmpeg sets sizes that it refuses to 0, before any decoder."""
    width, height = stream.codec_context.width, stream.codec_context.height
    if width and height:
        return width, height
    no_decoder = {"codec_whitelist": "none"}
    with open_bytes(path) as file, _open_container(file, path, limits, no_decoder) as raw:
        if stream.index >= len(raw.streams):  # it shows only where something is decoded
            return 0, 0
        context = raw.streams[stream.index].codec_context
        return getattr(context, "width", 0), getattr(context, "height", 0)


def check_size(path: str, width: int, height: int, limits: Limits) -> None:
    """Refuse dimensions beyond the limits."""
    if width * height > limits.max_pixels or max(width, height) > limits.max_side:
        raise ClipError(
            "too-large",
            f"{path} claims {width}x{height}; allowed are {limits.max_pixels} pixels"
            f" and {limits.max_side} a side",
        )


def check_count(path: str, n_frames: int, max_frames: int) -> None:
    """Refuse a frame count beyond the limits."""
    if n_frames > max_frames:
        raise ClipError(
            "too-large", f"{path} has {n_frames} frames or more; allowed are {max_frames}"
        )


def _set_up_decoder(context: VideoCodecContext, threads: int, limits: Limits) -> None:
    context.thread_count = threads
    context.thread_type = "NONE" if threads == 1 else "AUTO"
    context.options = {"max_pixels": str(limits.max_pixels)}


@contextmanager
def open_video(
    path: str, *, threads: int, limits: Limits, demuxer_options: dict[str, str] | None = None
) -> Iterator[OpenVideo]:
    """The container and its first moving-picture stream, checked against the limits."""
    with open_bytes(path) as file, clip_errors(path):
        check_claims(file, path, file.size_bytes)
        container = _open_container(file, path, limits, demuxer_options or {})
        with container:
            stream = _video_stream(container, path)
            check_size(path, *_claimed_size(stream, path, limits), limits)
            _set_up_decoder(stream.codec_context, threads, limits)
            most = min(limits.max_frames, file.size_bytes)  # a frame takes a byte at least
            yield OpenVideo(path=path, container=container, stream=stream, max_frames=most)
