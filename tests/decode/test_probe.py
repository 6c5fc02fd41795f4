"""What probing says about a file, against plain PyAV and against how the file was made."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

VIDEOS = (
    "animated.gif",
    "arm_wrestling.mp4",
    "av1_video.mkv",
    "h264_10bits.mp4",
    "h265_video.mp4",
    "mmaction2_test.avi",
    "nasa_13013.mp4",
    "test_non_zero_start.mp4",
    "testsrc2_mpeg4.avi",
    "testsrc2_odd_height_and_width_vp9.mp4",
    "v_GGSY1Qvo990.mp4",
    "v_ZNVhz7ctTq0.mp4",
)


@pytest.mark.shared
@pytest.mark.parametrize("name", VIDEOS)
def test_every_decoded_frame_is_listed_at_its_time(shared: Path, decoder, name: str):
    path = str(shared / "videos" / name)
    with av.open(path) as container:
        stream = container.streams.video[0]
        decoded = list(container.decode(stream))
        seconds = [f.time for f in decoded]
        if name == "mmaction2_test.avi":  # its presentation times run backwards
            seconds = [f.dts * stream.time_base for f in decoded[:-1]]
            seconds.append(seconds[-1] + Fraction(1, 25))
        frame_s = 1 / float(stream.average_rate)
    media = decoder.probe(path)
    assert media.pts.dtype == np.int64
    assert np.all(np.diff(media.pts) > 0)
    np.testing.assert_allclose(media.pts_s, np.array(seconds, float), atol=1e-9)
    assert media.end_s - media.pts_s[-1] == pytest.approx(frame_s, rel=0.05, abs=0.011)
    assert (media.width, media.height) == (decoded[0].width, decoded[0].height)


@pytest.mark.shared
def test_the_picture_is_described(shared: Path, decoder):
    media = decoder.probe(str(shared / "videos" / "nasa_13013.mp4"))
    assert (media.container, media.codec, media.pix_fmt) == (
        "mov,mp4,m4a,3gp,3g2,mj2",
        "h264",
        "yuv420p",
    )
    assert (media.width, media.height, media.rotation_deg, media.sar) == (320, 180, 0, 1)
    assert (media.transfer, media.time_base, media.n_frames) == ("bt709", Fraction(1, 12800), 325)
    assert media.duration_s == pytest.approx(13.0)


@pytest.mark.shared
def test_the_codec_is_named_after_the_standard_not_the_library(shared: Path, decoder):
    assert decoder.probe(str(shared / "videos" / "av1_video.mkv")).codec == "av1"


@pytest.mark.shared
def test_sample_aspect_ratio(shared: Path, decoder):
    assert decoder.probe(str(shared / "videos" / "arm_wrestling.mp4")).sar == Fraction(64, 51)
    assert decoder.probe(str(shared / "videos" / "animated.gif")).sar == 1


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"options": {"bf": "3", "b-pyramid": "normal"}}),
        ("a.mkv", "libx264", {"options": {"bf": "3"}}),
        ("a.mkv", "libx264", {"options": {"x264-params": "interlaced=1"}}),
        ("a.mkv", "libx265", {"options": {"x265-params": "log-level=none"}}),
        ("a.webm", "libvpx", {"options": {"auto-alt-ref": "1", "lag-in-frames": "16"}}),
        ("a.webm", "libvpx-vp9", {"options": {"auto-alt-ref": "1", "lag-in-frames": "16"}}),
        ("a.avi", "mpeg4", {"options": {"bf": "2"}}),
        ("a.avi", "libx264", {}),
        ("a.avi", "mjpeg", {"pix_fmt": "yuvj420p"}),
        ("a.flv", "libx264", {}),
        ("a.wmv", "wmv2", {}),
        ("a.ts", "libx264", {}),
        ("a.mpg", "mpeg2video", {"format": "mpeg"}),
        ("a.mov", "libx264", {}),
        ("a.3gp", "mpeg4", {}),
        ("frag.mp4", "libx264", {"muxer": {"movflags": "frag_keyframe+empty_moov"}}),
    ],
)
def test_each_container_lists_and_gives_every_frame(encode, decoder, take, name, codec, options):
    path = encode(name, codec, n=45, **options)
    media = decoder.probe(str(path))
    assert media.n_frames == 45
    spacing_s = np.diff(media.pts_s)
    np.testing.assert_allclose(spacing_s, 1 / 30, atol=0.0011)
    assert media.duration_s == pytest.approx(1.5, abs=0.02)
    assert len(take(path)) == 45


def test_variable_rate_keeps_the_times_as_written(encode, decoder):
    pts = [0, 1, 2, 5, 6, 20, 21, 22, 60]
    path = encode("a.mp4", n=9, pts=pts, options={"bf": "2"})
    media = decoder.probe(str(path))
    np.testing.assert_allclose(media.pts_s, np.array(pts) / 30, atol=1e-9)
    with av.open(str(path)) as container:
        last = max((p for p in container.demux(0) if p.size), key=lambda p: p.pts)
    assert media.end_pts == last.pts + last.duration


def test_a_late_start_is_kept(encode, decoder):
    media = decoder.probe(str(encode("a.mkv", n=5, pts=[90, 91, 92, 93, 94])))
    np.testing.assert_allclose(media.pts_s, np.arange(90, 95) / 30, atol=0.001)


def test_one_frame_lasts_one_average_frame(encode, decoder, take):
    for name in ("a.mp4", "a.mkv", "a.avi"):
        path = encode(name, "mpeg4", n=1, rate=25)
        media = decoder.probe(str(path))
        assert media.n_frames == 1
        assert media.duration_s == pytest.approx(0.04, abs=0.001)
        assert take(path).shape == (1, 48, 64, 3)


@pytest.mark.parametrize(("start_s", "length_s"), [(1.0, None), (0.0, 1.0), (0.5, 1.0)])
def test_an_edit_list_hides_frames_but_the_file_is_whole(encode, decoder, take, start_s, length_s):
    """Part of the 60 listed samples is edited out, at the start, at the end, or both."""
    path = encode("a.mp4", n=60, options={"g": "30", "bf": "2"})
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        ticks, first = (
            stream.time_base.denominator,
            -min(p.dts for p in container.demux(0) if p.size),
        )
    data = bytearray(path.read_bytes())
    entry = data.index(b"elst") + 12
    if length_s is not None:
        data[entry : entry + 4] = round(length_s * 1000).to_bytes(4, "big")  # movie timescale
    data[entry + 4 : entry + 8] = round(start_s * ticks + first).to_bytes(4, "big")
    path.write_bytes(data)
    with av.open(str(path)) as container:
        shown = [f.pts for f in container.decode(video=0)]
    assert len(shown) < 60
    assert decoder.probe(str(path)).pts.tolist() == shown
    assert len(take(path)) == len(shown)


def test_frames_without_times_are_spaced_by_the_average_rate(encode, decoder, take):
    path = encode("a.avi", n=40, options={"bf": "3"}, rate=20)
    media = decoder.probe(str(path))
    np.testing.assert_allclose(np.diff(media.pts_s), 0.05)
    picked = [3, 17, 39]
    np.testing.assert_array_equal(take(path, picked), take(path)[picked])


def test_a_capture_entered_between_key_frames_starts_at_the_next_one(encode, decoder, take):
    path = encode("a.ts", n=400, options={"g": "330", "sc_threshold": "0"})
    data = path.read_bytes()
    path.write_bytes(data[len(data) // 6 // 188 * 188 :])
    media = decoder.probe(str(path))
    assert media.n_frames == 70
    assert len(take(path)) == 70


def test_the_transfer_tag_of_hdr_is_recorded(encode, decoder):
    path = encode("a.mkv", n=3, pix_fmt="yuv420p10le", tags={"color_trc": 16, "color_primaries": 9})
    assert decoder.probe(str(path)).transfer == "smpte2084"
    assert decoder.probe(str(encode("b.mkv", n=3))).transfer == ""


def test_leading_frames_that_cannot_be_decoded_are_not_listed(encode, decoder, take, tmp_path):
    """A stream cut at an open-GOP key frame: the frames shown before it refer to lost ones."""
    if int(av.__version__.split(".")[0]) < 16:
        pytest.skip("this PyAV remuxes without the codec's header")
    open_gop = {"flags": "-cgop", "x264-params": "b-adapt=0:scenecut=0:open-gop=1"}
    whole = encode("whole.mkv", n=90, options={"bf": "3", "g": "30", **open_gop})
    path = tmp_path / "cut.mkv"
    with av.open(str(whole)) as old, av.open(str(path), "w") as new:
        source = old.streams.video[0]
        stream = new.add_stream_from_template(source)
        packets = [p for p in old.demux(source) if p.size]
        entry = next(i for i, p in enumerate(packets) if p.is_keyframe and i)
        leading = [p for p in packets[entry:] if p.pts < packets[entry].pts]
        assert leading
        for packet in packets[entry:]:
            packet.stream = stream
            new.mux(packet)
    media = decoder.probe(str(path))
    assert media.n_frames == len(packets) - entry - len(leading)
    assert len(take(path)) == media.n_frames


def test_the_last_frame_lasts_as_long_as_its_packet_says(encode, decoder):
    source = encode("a.mkv", "mjpeg", n=10, pix_fmt="yuvj420p")
    path = source.with_name("held.mp4")
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in [p for p in old.demux(video=0) if p.size]:
            packet.duration = 2000 if packet.pts == 300 else 33
            packet.stream = stream
            new.mux(packet)
    media = decoder.probe(str(path))
    assert media.pts_s[-1] == pytest.approx(0.3, abs=0.001)
    assert media.end_s == pytest.approx(2.3, abs=0.002)
