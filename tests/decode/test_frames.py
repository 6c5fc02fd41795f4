"""Taking frames: the right ones, wherever they lie, and nothing missing in silence."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest

from flowprep.decode import pyav as decoder_module
from flowprep.decode.color import RgbConverter
from flowprep.decode.pyav import PyAVDecoder
from flowprep.errors import ClipError


def plain_decode(path: Path) -> list[av.VideoFrame]:
    """Every frame, by PyAV alone from the first packet to the last."""
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def assert_same(got: np.ndarray, plain: list[av.VideoFrame], index: list[int]) -> None:
    assert len(got) == len(index)
    to_rgb = RgbConverter(width=plain[0].width, height=plain[0].height, rotation_deg=0)
    frames = {i: to_rgb(plain[i]) for i in index}
    for one, i in zip(got, index, strict=True):
        assert one.dtype == np.uint8
        assert one.flags.c_contiguous
        np.testing.assert_array_equal(one, frames[i], err_msg=f"frame {i}")


@pytest.mark.shared
def test_any_selection_gives_the_frames_of_a_plain_decode(shared_videos, take):
    rng = np.random.default_rng(7)
    for path in shared_videos:
        frames = plain_decode(path)
        n = len(frames)
        late = list(range(n * 3 // 4, min(n, n * 3 // 4 + 8)))
        scattered = sorted(rng.choice(n, min(n, 6), replace=False).tolist())
        for index in (list(range(n)), scattered, late, [n - 1]):
            assert_same(take(path, index), frames, index)


@pytest.fixture
def opened_at_start(monkeypatch) -> list[bool]:
    """Whether each run over a file sought (False) or read from the start (True)."""
    runs: list[bool] = []
    real = decoder_module._packets

    def watch(video, job, *, seek):
        runs.append(not seek)
        return real(video, job, seek=seek)

    monkeypatch.setattr(decoder_module, "_packets", watch)
    return runs


OPEN_GOP = {"flags": "-cgop", "x264-params": "b-adapt=0:scenecut=0:open-gop=1"}
X265 = {"x265-params": "open-gop=1:keyint=24:scenecut=0:bframes=3:b-adapt=0:log-level=none"}


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"bf": "3", "g": "24", "sc_threshold": "0"}),
        ("libx264", {"bf": "3", "g": "24", **OPEN_GOP}),
        ("libx265", X265),
        ("mpeg2video", {"bf": "2", "g": "24"}),
        ("mpeg4", {"bf": "2", "g": "24"}),
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_late_windows_seek_and_are_exact(encode, take, opened_at_start, name, codec, options):
    path = encode(name, codec, n=240, options=options)
    frames = plain_decode(path)
    for start in (75, *range(92, 99), *range(116, 123), *range(188, 195), 239):
        index = list(range(start, min(start + 5, 240)))
        assert_same(take(path, index), frames, index)
    assert opened_at_start == [False] * 23


def test_a_seek_decodes_only_the_tail(encode, decoder, monkeypatch):
    path = encode("a.mp4", n=300, options={"g": "30"})
    media = decoder.probe(str(path))
    decoded = []
    real = decoder_module._marked
    monkeypatch.setattr(
        decoder_module,
        "_marked",
        lambda frames, regular: (decoded.append(m) or (m, f) for m, f in real(frames, regular)),
    )
    assert len(list(decoder.frames(str(path), media, np.array([275, 276])))) == 2
    assert decoded == media.pts[decoded[0] == media.pts].tolist() + decoded[1:]
    assert len(decoded) <= 37
    assert decoded[-1] == media.pts[276]


@pytest.mark.parametrize("noticed_at", ["packet", "frame"])
def test_a_seek_that_lands_too_late_starts_over(encode, take, monkeypatch, noticed_at):
    path = encode("a.mp4", n=150, options={"g": "30"})
    plain = plain_decode(path)

    def overshoot(video, pts):
        video.container.seek(int(4.1 / video.stream.time_base), stream=video.stream)
        return video.packets()

    monkeypatch.setattr(decoder_module, "_seek", overshoot)
    if noticed_at == "frame":
        monkeypatch.setattr(decoder_module, "_is_entry", lambda packet, first_pts: True)
    assert_same(take(path, [100]), plain, [100])


def test_only_taken_frames_are_converted_and_decoding_stops(encode, decoder, monkeypatch):
    path = encode("a.mp4", n=60)
    media = decoder.probe(str(path))
    converted, decoded = [], []
    real_call, real_marked = RgbConverter.__call__, decoder_module._marked
    monkeypatch.setattr(
        RgbConverter, "__call__", lambda self, f: converted.append(f.pts) or real_call(self, f)
    )
    monkeypatch.setattr(
        decoder_module,
        "_marked",
        lambda frames, regular: (
            decoded.append(m) or (m, f) for m, f in real_marked(frames, regular)
        ),
    )
    index = np.array([2, 9, 20])
    assert len(list(decoder.frames(str(path), media, index))) == 3
    assert converted == media.pts[index].tolist()
    assert decoded == media.pts[:21].tolist()


def test_frames_come_one_at_a_time_and_may_be_abandoned(encode, decoder):
    path = encode("a.mp4", n=30)
    media = decoder.probe(str(path))
    before = len(os.listdir("/proc/self/fd"))
    frames = decoder.frames(str(path), media, np.arange(30))
    assert next(frames).shape == (48, 64, 3)
    frames.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("index", [[], [3, 3], [5, 4], [-1, 2], [10], [[1, 2]]])
def test_a_bad_selection_is_a_programming_error(encode, decoder, index):
    path = encode("a.mp4", n=10)
    media = decoder.probe(str(path))
    with pytest.raises(ValueError, match="source_index"):
        decoder.frames(str(path), media, np.array(index, np.int64))


def _with_pts(media, pts):
    return type(media)(**{**vars(media), "pts": np.array(pts, np.int64)})


def test_a_frame_that_never_comes_is_missing(encode, decoder):
    path = encode("a.mp4", n=20)
    media = decoder.probe(str(path))
    pts = media.pts.tolist()
    wrong = _with_pts(media, [*pts[:10], pts[10] + 3, *pts[11:]])
    frames = decoder.frames(str(path), wrong, np.array([4, 10, 15]))
    next(frames)
    with pytest.raises(ClipError, match=r"gave 1 of 3 frames, first missing at 0\.33") as caught:
        next(frames)
    assert caught.value.reason == "frames-missing"


def test_a_file_cut_off_after_probing_is_truncated(encode, decoder):
    path = encode("a.mp4", n=90, muxer={"movflags": "faststart"})
    media = decoder.probe(str(path))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for index in ([10, 89], [85, 86, 89]):
        with pytest.raises(ClipError) as caught:
            list(decoder.frames(str(path), media, np.array(index)))
        assert caught.value.reason in {"truncated", "decode-error"}


def test_damage_that_the_decoder_refuses_stops_the_clip(encode, decoder):
    path = encode("a.mp4", n=60, options={"g": "60", "bf": "0"})
    media = decoder.probe(str(path))
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(video=0) if p.size][30]
    data = bytearray(path.read_bytes())
    data[packet.pos + 4 : packet.pos + packet.size] = b"\xff" * (packet.size - 4)
    path.write_bytes(data)
    assert decoder.probe(str(path)).n_frames == 60
    given = []
    with pytest.raises(ClipError) as caught:
        given.extend(decoder.frames(str(path), media, np.arange(60)))
    assert caught.value.reason == "decode-error"
    assert len(given) <= 30


@pytest.mark.shared
def test_frames_that_the_decoder_marks_as_damaged_are_counted(shared: Path, tmp_path, decoder):
    source = shared / "videos" / "arm_wrestling.mp4"
    media = decoder.probe(str(source))
    with av.open(str(source)) as container:
        packet = [p for p in container.demux(video=0) if p.size][140]
    data = bytearray(source.read_bytes())
    start, end = packet.pos + min(12, packet.size // 4), packet.pos + packet.size
    data[start:end] = np.random.default_rng(0).bytes(end - start)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(data)
    with av.open(str(damaged)) as container:
        container.streams.video[0].thread_type = "NONE"
        flagged = sum(f.is_corrupt for f in container.decode(video=0))
    assert flagged > 0
    assert len(list(decoder.frames(str(damaged), media, np.arange(media.n_frames)))) == 280
    assert decoder.corrupt_frames == flagged
    list(decoder.frames(str(source), media, np.arange(5)))
    assert decoder.corrupt_frames == 0


@pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9", "libsvtav1", "mpeg4"])
def test_one_thread_means_one(encode, decoder, codec):
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg build cannot encode with {codec}")
    path = encode("a.mkv", codec, n=12, width=640, height=480)
    media = decoder.probe(str(path))
    before = set(os.listdir("/proc/self/task"))
    for _ in decoder.frames(str(path), media, np.arange(12)):
        assert set(os.listdir("/proc/self/task")) <= before


def test_more_threads_give_the_same_frames(encode, take):
    path = encode("a.mp4", n=40, width=320, height=240)
    single = take(path)
    media = PyAVDecoder().probe(str(path))
    several = np.stack(list(PyAVDecoder(threads=4).frames(str(path), media, np.arange(40))))
    np.testing.assert_array_equal(single, several)


def test_a_change_of_size_is_scaled_to_the_first(encode, take):
    small, large = encode("s.ts", n=10), encode("l.ts", n=10, width=96, height=96)
    both = small.with_name("both.ts")
    both.write_bytes(small.read_bytes() + large.read_bytes())
    assert take(both).shape == (20, 48, 64, 3)


def test_frames_that_share_a_time_are_all_kept_and_known_by_their_place(encode, take, decoder):
    source = encode("a.mkv", "mjpeg", n=300, pix_fmt="yuvj420p")
    path = source.with_name("repeated.mkv")
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for i, packet in enumerate(p for p in old.demux(video=0) if p.size):
            packet.pts = packet.dts = packet.pts - 33 * (i in {40, 90})
            packet.stream = stream
            new.mux(packet)
    plain = plain_decode(path)
    assert len({frame.pts for frame in plain}) == 298
    media = decoder.probe(str(path))
    assert media.n_frames == 300
    np.testing.assert_allclose(media.pts_s, np.arange(300) / 30, atol=0.04)
    for index in ([0, 39, 40, 41], [100, 101, 299]):
        assert_same(take(path, index), plain, index)


def test_another_file_under_the_same_name_is_noticed(encode, decoder):
    media = decoder.probe(str(encode("a.mp4", n=20, rate=30)))
    path = encode("a.mp4", n=20, rate=25)
    with pytest.raises(ClipError) as caught:
        list(decoder.frames(str(path), media, np.arange(5)))
    assert caught.value.reason == "changed"
