"""Reading some frames out of the bytes of a video that may come from anywhere."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, cast

import numpy as np

from flowprep.codec.base import GOP, MAX_PIXELS
from flowprep.codec.pixels import Array, dtype_of, shape_of

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import InputContainer
    from av.packet import Packet

    from flowprep.codec.video import VideoCodec

DEMUXERS = {"mp4": "mov", "mkv": "matroska"}
DECODER_OPTIONS = {"max_pixels": str(MAX_PIXELS), "threads": "1"}


def read_window(codec: VideoCodec, data: bytes, start: int, stop: int | None) -> np.ndarray:
    """Frames start..stop-1 of the video `data`. Raises ValueError when they cannot be had."""
    if start < 0 or (stop is not None and stop < start):
        raise ValueError(f"frames {start} to {stop} are no window")
    with _opened(codec, data) as container:
        stream = _stream(codec, container)
        height, width = stream.codec_context.height, stream.codec_context.width
        arrays = list(_arrays(codec, stream, _packets(codec, container, stream), start, stop))
    if not arrays:
        return np.empty((0, *shape_of(codec.kind, height, width)), dtype_of(codec.kind))
    return np.stack(arrays)


@contextmanager
def _opened(codec: VideoCodec, data: bytes) -> Iterator[InputContainer]:
    """The container in `data`. What FFmpeg raises in the body becomes a ValueError."""
    import av

    options = {
        "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm",
        "protocol_whitelist": "none",
        "codec_whitelist": codec.decoder,
        **DECODER_OPTIONS,
    }
    try:
        with av.open(
            io.BytesIO(data),
            format=DEMUXERS[codec.suffix],
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


def _packets(codec: VideoCodec, container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """The packets of the stream in order: one for each frame, every `GOP`-th a keyframe."""
    index = 0
    for packet in container.demux(stream):
        if not packet.size:
            continue
        if packet.is_keyframe != (index % GOP == 0):
            raise ValueError(f"the {codec.name} video has its keyframes not at every frame {GOP}")
        yield packet
        index += 1


def _arrays(
    codec: VideoCodec,
    stream: VideoStream,
    packets: Iterator[Packet],
    start: int,
    stop: int | None,
) -> Iterator[Array]:
    """The frames start..stop-1, decoded from the keyframe before `start`."""
    first = start - start % GOP
    height, width = stream.codec_context.height, stream.codec_context.width
    pixels = codec.pixel_format(height, width)
    n_skipped = sum(1 for _ in islice(packets, first))
    n_frames = n_skipped
    for frame in _decoded(codec, stream, islice(packets, None if stop is None else stop - first)):
        if (frame.height, frame.width) != (height, width) or frame.is_corrupt:
            raise ValueError(f"frame {n_frames} of the {codec.name} video is damaged")
        if frame.format.name not in pixels.decoded:
            raise ValueError(f"the {codec.name} video is {frame.format.name}, not {pixels.name}")
        if n_frames >= start:
            yield pixels.unpack(frame)
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
        codec.check_packet(bytes(packet))
        n_packets += 1
        for frame in packet.decode():
            n_frames += 1
            yield frame
    for frame in stream.codec_context.decode(None):
        n_frames += 1
        yield frame
    if n_frames != n_packets:
        raise ValueError(f"{n_packets - n_frames} frames of the {codec.name} video do not decode")
