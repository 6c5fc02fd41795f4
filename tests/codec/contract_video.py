"""What the contract asks of codecs that store a video, and of those that store a zip."""

from __future__ import annotations

import io
import re
import zipfile
from collections import defaultdict
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from codec_clips import FPS, N_FRAMES, encode, make_frames

from flowprep.codec.base import GOP, Codec

Check = Callable[[Codec, Path], None]

N_DAMAGED = 40
INTRA, PREDICTED = 1, 2  # AVPictureType


def check_lossless_damage_is_seen(codec: Codec, folder: Path) -> None:
    """A flipped byte gives a ValueError or the same frames: never other ones."""
    frames = make_frames(codec.kind, 40, 48)
    data = encode(codec, frames, folder)
    rng = np.random.default_rng(3)
    for _ in range(N_DAMAGED):
        at = int(rng.integers(len(data) // 8, len(data) * 7 // 8))
        broken = data[:at] + bytes([data[at] ^ (1 << rng.integers(8))]) + data[at + 1 :]
        try:
            back = codec.read(broken, 0, N_FRAMES)
        except ValueError:
            continue
        np.testing.assert_array_equal(back, frames)


def check_other_codecs_are_refused(codec: Codec, folder: Path) -> None:
    """A playable video of another codec in the same container is refused by name."""
    path = folder / f"other.{codec.suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 40, "yuv420p"
        container.mux(stream.encode(av.VideoFrame(48, 40, "yuv420p")))
        container.mux(stream.encode(None))
    with pytest.raises(ValueError, match=r"not (h264|ffv1)"):
        codec.read(path.read_bytes())


def check_other_pixel_formats_are_refused(codec: Codec, folder: Path) -> None:
    path = folder / f"other.{codec.suffix}"
    encoder = "libx264" if codec.suffix == "mp4" else "ffv1"
    options = {} if codec.suffix == "mp4" else {"level": "3", "slicecrc": "1"}
    for pixel_format in ("yuv422p", "yuv420p10le", "yuv444p10le"):
        with av.open(str(path), "w") as container:
            stream = container.add_stream(encoder, rate=25, options=options)
            stream.width, stream.height, stream.pix_fmt = 48, 40, pixel_format
            container.mux(stream.encode(av.VideoFrame(48, 40, pixel_format)))
            container.mux(stream.encode(None))
        with pytest.raises(ValueError, match=pixel_format):
            codec.read(path.read_bytes())


def check_lost_frames_are_seen(codec: Codec, folder: Path) -> None:
    """A file that lacks one packet is refused when the window reaches the next keyframe."""
    whole = encode(codec, make_frames(codec.kind, 40, 48), folder)
    path = folder / f"lost.{codec.suffix}"
    with av.open(io.BytesIO(whole)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for index, packet in enumerate(source.demux(video=0)):
            if packet.size and index != GOP - 2:
                packet.stream = stream
                container.mux(packet)
    with pytest.raises(ValueError, match=r"keyframes|decode"):
        codec.read(path.read_bytes(), GOP, GOP + 2)


def packets_of(data: bytes) -> list[av.Packet]:
    with av.open(io.BytesIO(data)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def check_keyframes_every_gop(codec: Codec, folder: Path) -> None:
    frames = make_frames(codec.kind, 40, 48)
    frames[GOP // 2 :] = np.iinfo(frames.dtype).max - frames[GOP // 2 :]  # a scene cut
    packets = packets_of(encode(codec, frames, folder))
    assert [i for i, packet in enumerate(packets) if packet.is_keyframe] == [0, GOP, 2 * GOP]


def check_frames_are_not_reordered(codec: Codec, folder: Path) -> None:
    data = encode(codec, make_frames(codec.kind, 40, 48), folder)
    packets = packets_of(data)
    assert [packet.pts for packet in packets] == sorted({packet.pts for packet in packets})
    assert all(packet.pts == packet.dts for packet in packets)
    with av.open(io.BytesIO(data)) as container:
        types = {int(frame.pict_type) for frame in container.decode(video=0)}
        assert not container.streams.video[0].codec_context.has_b_frames
    assert types <= {INTRA, PREDICTED}


def check_colour_tags(codec: Codec, folder: Path) -> None:
    matrix = 0 if codec.kind == "rgb" and codec.lossless else 6
    color_range = 1 if codec.kind == "rgb" and not codec.lossless else 2
    data = encode(codec, make_frames(codec.kind, 40, 48), folder)
    with av.open(io.BytesIO(data)) as container:
        context = container.streams.video[0].codec_context
        tags = context.color_range, context.colorspace
        assert tags == (color_range, matrix)
        assert (context.color_primaries, context.color_trc) == (1, 1)


def check_nothing_tells_time_or_version(codec: Codec, folder: Path) -> None:
    data = encode(codec, make_frames(codec.kind, 40, 48), folder)
    for word in (b"x264 - core", b"Lavf6", b"Lavc6", b"creation_time", str(folder).encode()):
        assert word not in data
    with av.open(io.BytesIO(data)) as container:
        assert "creation_time" not in container.metadata


def check_times_are_kept(codec: Codec, folder: Path) -> None:
    """Variable rate: to the tick; the last frame lasts as long as the one before."""
    frames = make_frames(codec.kind, 40, 48, n_frames=5)
    pts_s = np.array([0, 0.04, 0.1, 0.1001, 4.2])
    path = folder / f"times.{codec.suffix}"
    with codec.open_writer(path, *frames.shape[1:3]) as writer:
        writer.write(frames[:2], pts_s[:2])
        writer.write(frames[2:], pts_s[2:])
    tick = Fraction(1, 90_000) if codec.suffix == "mp4" else Fraction(1, 1000)
    packets = packets_of(path.read_bytes())
    assert {packet.time_base for packet in packets} == {tick}
    times = [float(packet.pts * packet.time_base) for packet in packets]
    assert np.abs(np.array(times) - pts_s).max() <= 1.01 * tick
    assert np.all(np.diff(times) > 0)
    with av.open(str(path)) as container:
        assert container.duration / 1e6 == pytest.approx(4.2 + (4.2 - 0.1001), abs=0.002)


def check_duration(codec: Codec, folder: Path) -> None:
    data = encode(codec, make_frames(codec.kind, 40, 48, n_frames=FPS), folder)
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == FPS
        assert container.duration / 1e6 == pytest.approx(1.0, abs=0.002)


def check_plain_reader(codec: Codec, folder: Path) -> None:
    """`av.open(...).decode` gives the codes themselves, and RGB as near as swscale rounds."""
    for height, width in [(40, 48), (37, 53)]:
        frames = make_frames(codec.kind, height, width)
        data = encode(codec, frames, folder)
        pixels = {"rgb": "rgb24", "flow8": "gray", "flow16": "gray16le"}[codec.kind]
        with av.open(io.BytesIO(data)) as container:
            plain = [frame.to_ndarray(format=pixels) for frame in container.decode(video=0)]
        error = np.stack(plain).astype(int) - codec.read(data)
        if codec.kind != "rgb" or codec.lossless:
            assert not error.any()
        else:
            assert np.abs(error.mean((0, 1, 2))).max() < 1.6
            assert np.abs(error).mean() < 3


def check_textbook_conversion(codec: Codec, folder: Path) -> None:
    """BT.601 as the standard writes it gives what `read` gives, but for the rounding."""
    height, width = 40, 48
    data = encode(codec, make_frames(codec.kind, height, width), folder)
    to_rgb = np.array([[1.16438, 0, 1.59603], [1.16438, -0.39176, -0.81297], [1.16438, 2.01723, 0]])
    plain = []
    with av.open(io.BytesIO(data)) as container:
        for frame in container.decode(video=0):
            yuv = frame.to_ndarray(format="yuv420p")
            u, v = yuv[height:].reshape(2, height // 2, width // 2)
            u, v = (c.repeat(2, axis=0).repeat(2, axis=1) for c in (u, v))
            ycc = np.stack([yuv[:height], u, v], axis=-1) - np.array([16.0, 128.0, 128.0])
            plain.append(np.clip(np.rint(ycc @ to_rgb.T), 0, 255).astype(np.uint8))
    error = np.stack(plain).astype(int) - codec.read(data)
    assert np.abs(error).max() <= 1  # OpenCV counts with 10 bits after the point
    assert np.abs(error).mean() < 0.06
    assert np.abs(error.mean((0, 1, 2))).max() < 0.1


def check_h264_is_quick_to_decode(codec: Codec, folder: Path) -> None:
    """What FFmpeg's own parser finds in each header: CAVLC, and no filter of block edges."""
    headers = headers_of(encode(codec, make_frames(codec.kind, 40, 48), folder))
    assert set(headers["entropy_coding_mode_flag"]) == {0}
    assert headers["disable_deblocking_filter_idc"] == [1] * N_FRAMES


def headers_of(data: bytes) -> dict[str, list[int]]:
    """Every field of the H.264 headers in a file, with its values in order."""
    fields = defaultdict[str, list[int]](list)
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        with av.logging.Capture(local=False) as lines, av.open(io.BytesIO(data)) as container:
            trace = BitStreamFilterContext("trace_headers", container.streams.video[0])
            for packet in container.demux(video=0):
                if packet.size:
                    trace.filter(packet)
    finally:
        av.logging.set_level(level)
    for _, _, line in lines:  # "12  entropy_coding_mode_flag  0 = 0"
        if field := re.fullmatch(r"\d+ +([a-z]\w*)\S* .*= (-?\d+)", line.strip()):
            fields[field[1]].append(int(field[2]))
    return fields


def check_plain_reader_of_zip(codec: Codec, folder: Path) -> None:
    data = encode(codec, make_frames(codec.kind, 40, 48), folder)
    flag = cv2.IMREAD_COLOR if codec.kind == "rgb" else cv2.IMREAD_GRAYSCALE
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == [f"{i:06d}.jpg" for i in range(N_FRAMES)]
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        images = [
            cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), flag)
            for name in archive.namelist()
        ]
    plain = np.stack(images)
    np.testing.assert_array_equal(
        plain[..., ::-1] if codec.kind == "rgb" else plain, codec.read(data)
    )


ALL: list[Check] = [
    check_other_codecs_are_refused,
    check_other_pixel_formats_are_refused,
    check_lost_frames_are_seen,
    check_keyframes_every_gop,
    check_frames_are_not_reordered,
    check_colour_tags,
    check_nothing_tells_time_or_version,
    check_times_are_kept,
    check_duration,
    check_plain_reader,
]
H264: list[Check] = [check_h264_is_quick_to_decode]
