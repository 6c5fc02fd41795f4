"""Reading some frames out of a video that may come from anywhere.

An mp4 lists the place of every packet, so that those before the window need not be read. Matroska
lists the times of keyframes, not how many frames lie between: there the packets before the window
are read, though not decoded, and so they are where PyAV does not show the list (`index_entries`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

import numpy as np

from flowprep.codec.base import GOP, MAX_PIXELS, Region, as_file
from flowprep.codec.pixels import Array, check_region, dtype_of, shape_of, whole

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import InputContainer
    from av.packet import Packet

    from flowprep.codec.video import VideoCodec

DEMUXERS = {"mp4": "mov", "mkv": "matroska"}
BUFFER_BYTES = 8192  # read at once to find the header, most of it for nothing
DECODER_OPTIONS = {"max_pixels": str(MAX_PIXELS), "threads": "1"}


def iter_window(
    codec: VideoCodec,
    data: bytes | BinaryIO,
    start: int,
    stop: int | None,
    region: Region | None = None,
) -> Iterator[Array]:
    """Frames start..stop-1 of the video `data`. Raises ValueError when they cannot be had."""
    if start < 0 or (stop is not None and stop < start):
        raise ValueError(f"frames {start} to {stop} are no window")
    file = as_file(data)
    with _opened(codec, file) as container:
        stream = _stream(codec, container)
        n_skipped, packets = _packets_from(codec, container, file, start - start % GOP, stop)
        yield from _arrays(codec, stream, packets, n_skipped, start, stop, region)


def read_window(
    codec: VideoCodec, data: bytes | BinaryIO, start: int, stop: int | None
) -> np.ndarray:
    """The same as one array."""
    if arrays := list(iter_window(codec, data, start, stop)):
        return np.stack(arrays)
    with _opened(codec, as_file(data)) as container:
        context = _stream(codec, container).codec_context
        shape = shape_of(codec.kind, context.height, context.width)
    return np.empty((0, *shape), dtype_of(codec.kind))


@contextmanager
def _opened(codec: VideoCodec, file: BinaryIO) -> Iterator[InputContainer]:
    """The container in `file`. What FFmpeg raises in the body becomes a ValueError."""
    import av

    options = {
        "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm",
        "protocol_whitelist": "none",
        "codec_whitelist": "none",  # else it decodes a frame of whatever it finds, for nothing
        **DECODER_OPTIONS,
    }
    try:
        with av.open(
            file,
            format=DEMUXERS[codec.suffix],
            buffer_size=BUFFER_BYTES,
            options=options,
            metadata_errors="replace",
        ) as container:
            yield cast("InputContainer", container)
    except (av.FFmpegError, UnicodeError) as error:
        raise ValueError(f"the {codec.name} video does not decode: {error}") from error


def _stream(codec: VideoCodec, container: InputContainer) -> VideoStream:
    """The one video stream, ready to decode on one thread."""
    if len(container.streams.video) != 1:
        raise ValueError(f"the {codec.name} file has {len(container.streams.video)} video streams")
    stream = container.streams.video[0]
    context = stream.codec_context
    if context is None or context.name != codec.decoder:
        raise ValueError(f"the video is not {codec.decoder}, which {codec.name} stores")
    if not 0 < context.width * context.height <= MAX_PIXELS:
        raise ValueError(f"the video claims {context.width} x {context.height} pixels")
    context.thread_count = 1
    context.options = {**DECODER_OPTIONS, "err_detect": "crccheck+bitstream+buffer+explode"}
    return stream


def _packets_from(
    codec: VideoCodec, container: InputContainer, file: BinaryIO, first: int, stop: int | None
) -> tuple[int, Iterator[Packet]]:
    """How many packets lie before packet `first`, at most that many, and those from it on.

    Those from `stop` on may be missing.
    """
    stream = container.streams.video[0]
    if codec.suffix == "mkv":
        container.seek(0, stream=stream)  # FFmpeg reads the list when it has to seek
    entries = _index(stream, stop if codec.suffix == "mp4" else None)
    if codec.suffix == "mp4" and entries is not None:
        return min(first, len(entries)), _placed(codec, file, entries, first)
    packets = _demuxed(codec, container, entries)
    return sum(1 for _ in islice(packets, first)), packets


class _Entry(NamedTuple):
    """A packet that the container lists; of mkv only keyframes, and of these only the time."""

    pos: int
    size: int
    pts: int
    is_keyframe: bool


def _index(stream: VideoStream, stop: int | None) -> list[_Entry] | None:
    """What the container lists, at most `stop` entries; None where PyAV does not tell.

    A copy: FFmpeg moves its own.
    """
    if not hasattr(stream, "index_entries"):
        return None
    entries = islice(stream.index_entries, stop)
    return [_Entry(e.pos, e.size, e.timestamp, e.is_keyframe) for e in entries]


def _placed(
    codec: VideoCodec, file: BinaryIO, entries: list[_Entry], first: int
) -> Iterator[Packet]:
    """The packets from `first` on, by the list of all."""
    from av.packet import Packet

    for index, entry in enumerate(entries):
        _check_keyframe(codec, index, entry.is_keyframe)
    for entry in entries[first:]:
        file.seek(entry.pos)
        data = file.read(entry.size)
        if not data or len(data) != entry.size:
            raise ValueError(f"the {codec.name} video is cut short")
        yield Packet(data)


def _demuxed(
    codec: VideoCodec, container: InputContainer, keyframes: list[_Entry] | None
) -> Iterator[Packet]:
    """The packets in order. FFmpeg skips what it cannot read, which the keyframes' times tell."""
    index = 0
    for packet in container.demux(container.streams.video[0]):
        if not packet.size:
            continue
        _check_keyframe(codec, index, packet.is_keyframe)
        if packet.is_keyframe and keyframes is not None:
            group = index // GOP
            if [packet.pts] != [entry.pts for entry in keyframes[group : group + 1]]:
                raise ValueError(f"the {codec.name} video lacks frames before frame {index}")
        yield packet
        index += 1


def _check_keyframe(codec: VideoCodec, index: int, is_keyframe: bool) -> None:
    if is_keyframe != (index % GOP == 0):
        raise ValueError(f"the {codec.name} video has its keyframes not at every frame {GOP}")


def _arrays(
    codec: VideoCodec,
    stream: VideoStream,
    packets: Iterator[Packet],
    n_skipped: int,
    start: int,
    stop: int | None,
    region: Region | None,
) -> Iterator[Array]:
    """The frames start..stop-1 out of packets of which the first is a keyframe."""
    height, width = stream.codec_context.height, stream.codec_context.width
    region = region or whole(codec.kind, height, width)
    check_region(codec.kind, region, height, width)
    pixels = codec.pixel_format(height, width)
    n_frames = n_skipped
    n_wanted = None if stop is None else max(stop - n_skipped, 0)
    for frame in _decoded(codec, stream, islice(packets, n_wanted)):
        if (frame.height, frame.width) != (height, width) or frame.is_corrupt:
            raise ValueError(f"frame {n_frames} of the {codec.name} video is damaged")
        if frame.format.name not in pixels.decoded:
            raise ValueError(f"the {codec.name} video is {frame.format.name}, not {pixels.name}")
        if n_frames >= start:
            yield pixels.unpack(frame, region)
        n_frames += 1
    wanted = start if stop is None else stop
    if n_frames < wanted:
        raise ValueError(f"the {codec.name} video ends after {n_frames} frames, not {wanted}")


def _decoded(
    codec: VideoCodec, stream: VideoStream, packets: Iterator[Packet]
) -> Iterator[VideoFrame]:
    """One frame for each packet."""
    n_packets = n_frames = 0
    for packet in packets:
        codec.check_packet(packet)
        n_packets += 1
        for frame in stream.codec_context.decode(packet):
            n_frames += 1
            yield frame
    for frame in stream.codec_context.decode(None):
        n_frames += 1
        yield frame
    if n_frames != n_packets:
        raise ValueError(f"{n_packets - n_frames} frames of the {codec.name} video do not decode")
