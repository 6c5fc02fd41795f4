"""Whatever a file holds, the answer is a video or a ClipError with the right reason."""

from __future__ import annotations

import builtins
import errno
import os
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from flowprep.decode.base import Limits
from flowprep.decode.pyav import PyAVDecoder
from flowprep.errors import ClipError


def write_audio(path: Path, cover: bool = False) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac" if path.suffix != ".mp3" else "libmp3lame", rate=44100)
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = 32, 32, "yuvj420p"
            flag = av.stream.Disposition.attached_pic
            picture.disposition = getattr(flag, "value", flag)
            container.mux(picture.encode(av.VideoFrame(32, 32, "yuvj420p")))
            container.mux(picture.encode())
        for i in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 44100, i * 1024, Fraction(1, 44100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty-file"),
        (b"\0", "not-a-video"),
        (b"Once upon a time\n" * 500, "not-a-video"),
        (b"1\n00:00:01,000 --> 00:00:02,000\nSubtitle\n\n" * 20, "not-a-video"),
        (bytes(range(256)) * 400, "not-a-video"),
        (b"\x89PNG\r\n\x1a\n" + bytes(4000), "not-a-video"),
        (b"PK\x03\x04" + bytes(4000), "not-a-video"),
        (b"\0\0\0\x18ftypisom" + bytes(12) + b"\0\0\0\x10mdat" + bytes(8), "truncated"),
        (b"\0\0\0\x18ftypisom" + bytes(12) + b"\xff\0\0\0mdat" + bytes(800), "truncated"),
        (b"\x1a\x45\xdf\xa3" + bytes(400), "decode-error"),
    ],
)
def test_content_decides_the_reason(tmp_path, reason, content, expected):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    assert reason(path) == expected


def test_random_bytes_never_escape_as_another_exception(tmp_path, reason):
    rng = np.random.default_rng(11)
    heads = [b"", b"\0\0\0\x20ftypmp42", b"\x1a\x45\xdf\xa3\x9f", b"RIFF\xff\0\0\0AVI LIST"]
    heads += [b"GIF89a\x20\0\x20\0", b"FLV\x01\x05", b"\0\0\x01\xba", b"OggS\0\x02", b"0&\xb2u"]
    for number in range(90):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(heads[number % len(heads)] + rng.bytes(int(rng.integers(1, 5000))))
        assert reason(path) != ""


def test_a_damaged_copy_never_escapes_as_another_exception(encode, tmp_path, reason):
    rng = np.random.default_rng(12)
    for name in ("a.mp4", "a.mkv", "a.avi", "a.ts", "a.flv", "a.gif"):
        codec, pix_fmt = ("gif", "rgb8") if name == "a.gif" else ("libx264", "yuv420p")
        data = encode(name, codec, n=12, pix_fmt=pix_fmt).read_bytes()
        for _ in range(25):
            broken = bytearray(data)
            for at in rng.integers(0, len(data), 12):
                broken[at] = rng.integers(0, 256)
            (tmp_path / f"x{name}").write_bytes(broken)
            reason(tmp_path / f"x{name}")


def test_files_the_system_does_not_give(tmp_path, reason, monkeypatch):
    assert reason(tmp_path / "absent.mp4") == "missing"
    (tmp_path / "file").write_bytes(b"x")
    assert reason(tmp_path / "file" / "below.mp4") == "missing"
    (tmp_path / "folder.mp4").mkdir()
    assert reason(tmp_path / "folder.mp4") == "unreadable"
    os.mkfifo(tmp_path / "pipe.mp4")
    assert reason(tmp_path / "pipe.mp4") == "unreadable"


@pytest.fixture
def faulty_disk(monkeypatch):
    """open() that refuses, or hands out files whose reads fail from a given call on."""

    class Faulty:
        def __init__(self, file, good_reads):
            self.file, self.left = file, good_reads

        def read(self, count):
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.EIO, "Input/output error")
            return self.file.read(count)

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

    real = builtins.open

    def install(good_reads: int | None) -> None:
        def replaced(path, mode="r", **options):
            if good_reads is None:
                raise PermissionError(errno.EACCES, "Permission denied")
            return Faulty(real(path, mode, **options), good_reads)

        monkeypatch.setattr(builtins, "open", replaced)

    return install


@pytest.mark.parametrize("good_reads", [None, 0, 1, 3])
def test_a_disk_that_refuses_is_unreadable_and_may_be_tried_again(
    encode, decoder, faulty_disk, good_reads
):
    path = encode("a.avi", "rawvideo", n=10, width=320, height=240)
    assert path.stat().st_size > 1_000_000
    faulty_disk(good_reads)
    with pytest.raises(ClipError) as caught:
        decoder.probe(str(path))
    assert caught.value.reason == "unreadable"
    assert caught.value.retriable


def test_the_message_names_the_file(tmp_path, decoder):
    path = tmp_path / "some clip.mp4"
    path.write_text("no video")
    with pytest.raises(ClipError, match=r"some clip\.mp4"):
        decoder.probe(str(path))


@pytest.mark.parametrize("name", ["a.m4a", "a.mp4", "a.mkv"])
def test_audio_alone_has_no_video_stream(tmp_path, reason, name):
    assert reason(write_audio(tmp_path / name)) == "no-video-stream"


def test_a_cover_picture_is_no_video(tmp_path, reason):
    path = write_audio(tmp_path / "a.mp4", cover=True)
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    assert reason(path) == "no-video-stream"


def test_an_unknown_codec_is_named_unsupported(encode, reason):
    path = encode("a.mkv", n=3)
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_NOSUCH/CODEC!"))
    assert reason(path) == "unsupported-codec"


def test_no_noise_on_the_terminal(encode, tmp_path, reason, capfd):
    path = encode("a.mp4", n=30)
    data = bytearray(path.read_bytes())
    data[200:1200] = bytes(1000)
    path.write_bytes(data)
    reason(path)
    assert capfd.readouterr() == ("", "")


def test_the_log_level_of_the_process_is_left_alone(encode, reason):
    av.logging.set_level(av.logging.PANIC)
    try:
        reason(encode("a.mp4", n=3))
        assert av.logging.get_level() == av.logging.PANIC
    finally:
        av.logging.set_level(None)


# Too large


def vint(value: int) -> bytes:
    return (value | 1 << 56).to_bytes(8, "big")


def element(identifier: str, content: bytes) -> bytes:
    return bytes.fromhex(identifier) + vint(len(content)) + content


def huge_mkv(width: int, height: int) -> bytes:
    video = element("b0", width.to_bytes(4, "big")) + element("ba", height.to_bytes(4, "big"))
    track = element("d7", b"\1") + element("73c5", b"\1") + element("83", b"\1")
    track += element("86", b"V_VP8") + element("e0", video)
    block = b"\x81\0\0\x80" + b"\x30\1\0\x9d\1\x2a" + bytes(40)
    cluster = element("e7", b"\0") + element("a3", block)
    segment = element("1549a966", element("2ad7b1", (10**6).to_bytes(4, "big")))
    segment += element("1654ae6b", element("ae", track)) + element("1f43b675", cluster)
    head = element("1a45dfa3", element("4282", b"webm") + element("4287", b"\2"))
    return head + element("18538067", segment)


def huge_avi(source: bytes, width: int, height: int) -> bytes:
    data = bytearray(source)
    at = data.index(b"strf") + 8 + 4
    data[at : at + 8] = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    return bytes(data)


def peak_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(x for x in status.splitlines() if x.startswith("VmHWM")).split()[1])


@pytest.mark.parametrize("kind", ["mkv", "avi"])
def test_absurd_dimensions_are_refused_at_once_and_without_memory(encode, decoder, tmp_path, kind):
    small = encode("small.avi", "rawvideo", n=1, width=16, height=16)
    assert decoder.probe(str(small)).n_frames == 1
    path = tmp_path / f"huge.{kind}"
    content = huge_mkv(100_000, 100_000) if kind == "mkv" else None
    path.write_bytes(content or huge_avi(small.read_bytes(), 100_000, 100_000))
    before_kib, start_s = peak_kib(), time.perf_counter()
    with pytest.raises(ClipError, match="100000x100000") as caught:
        decoder.probe(str(path))
    assert caught.value.reason == "too-large"
    assert time.perf_counter() - start_s < 0.2
    assert peak_kib() - before_kib < 20_000


def test_a_side_and_a_count_have_limits_of_their_own(encode):
    path = str(encode("a.mp4", n=20, width=128, height=32))
    for limits in (Limits(max_side=127), Limits(max_pixels=128 * 32 - 1), Limits(max_frames=19)):
        with pytest.raises(ClipError) as caught:
            PyAVDecoder(limits=limits).probe(path)
        assert caught.value.reason == "too-large"
    exact = Limits(max_side=128, max_pixels=128 * 32, max_frames=20)
    assert PyAVDecoder(limits=exact).probe(path).n_frames == 20


def test_a_count_that_no_header_states_is_limited_too(encode):
    path = str(encode("a.ts", n=20))
    with pytest.raises(ClipError) as caught:
        PyAVDecoder(limits=Limits(max_frames=19)).probe(path)
    assert caught.value.reason == "too-large"


def test_a_stream_that_grows_beyond_the_limit_is_stopped(encode, tmp_path):
    """The header says 64x48, the coded picture is 640x480: the header is not believed."""
    path = encode("a.mkv", "mjpeg", n=3, width=640, height=480, pix_fmt="yuvj420p")
    data = path.read_bytes()
    small = data.replace(b"\xb0\x82\x02\x80", b"\xb0\x82\x00\x40").replace(
        b"\xba\x82\x01\xe0", b"\xba\x82\x00\x30"
    )
    assert small != data
    path.write_bytes(small)
    with pytest.raises(ClipError):
        PyAVDecoder(limits=Limits(max_pixels=320 * 240)).probe(str(path))
    media = PyAVDecoder().probe(str(path))
    assert (media.width, media.height) == (640, 480)


# Truncated


@pytest.mark.shared
@pytest.mark.parametrize("share", [0.95, 0.5, 0.1])
def test_every_sample_cut_short_is_truncated(shared_videos, tmp_path, decoder, share):
    for source in shared_videos:
        data = source.read_bytes()
        path = tmp_path / source.name
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(ClipError) as caught:
            decoder.probe(str(path))
        assert (source.name, caught.value.reason) == (source.name, "truncated")


@pytest.mark.parametrize(
    ("name", "codec", "muxer"),
    [
        ("front.mp4", "libx264", {"movflags": "faststart"}),
        ("back.mp4", "libx264", {}),
        ("fragments.mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
        ("mixed.mp4", "libx264", {"movflags": "frag_keyframe"}),
        ("a.mkv", "libx264", {}),
        ("a.webm", "libvpx", {}),
        ("a.avi", "mpeg4", {}),
        ("a.wmv", "wmv2", {}),
    ],
)
@pytest.mark.parametrize("share", [0.8, 0.4])
def test_a_cut_file_of_each_container_is_truncated(encode, reason, name, codec, muxer, share):
    path = encode(name, codec, n=90, muxer=muxer, options={"g": "10"})
    assert reason(path) == ""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert reason(path) == "truncated"


def test_an_avi_that_only_lost_its_index_is_whole(encode, reason):
    path = encode("a.avi", "mpeg4", n=30)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"idx1")])
    assert reason(path) == ""


def test_a_cut_flash_video_is_truncated_once_a_second_is_missing(encode, reason):
    path = encode("a.flv", n=90)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert reason(path) == "truncated"


@pytest.mark.parametrize(("name", "format"), [("a.ts", "mpegts"), ("a.mpg", "mpeg")])
def test_mpeg_streams_cannot_tell_that_they_were_cut(encode, reason, name, format):
    """They have no header that states a length: what is there is a whole, shorter video."""
    path = encode(name, "mpeg2video", n=90, format=format)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2 // 188 * 188])
    assert reason(path) == ""


def test_a_whole_file_whose_audio_is_longer_is_not_truncated(tmp_path, reason):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        video, audio = container.add_stream("libx264", rate=30), container.add_stream("aac", 44100)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for i in range(10):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, 30)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        for i in range(200):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            sound.sample_rate, sound.pts, sound.time_base = 44100, i * 1024, Fraction(1, 44100)
            container.mux(audio.encode(sound))
        container.mux(audio.encode())
    assert reason(path) == ""


def test_a_title_that_is_no_utf8_does_no_harm(encode, reason):
    path = encode("a.mkv", n=3, metadata={"title": "Q" * 12})
    data = path.read_bytes()
    path.write_bytes(data.replace(b"Q" * 12, b"\xff" * 12))
    assert b"\xff" * 12 in path.read_bytes()
    assert reason(path) == ""
