"""The clips that a plan is made from, of many videos at once, against a slow oracle for each."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from medias import media_of

from flowprep import manifest
from flowprep.clips import clips_of
from flowprep.config import Settings
from flowprep.frametimes import pack, unpack
from flowprep.manifest import Manifest
from flowprep.records import Media, Video
from flowprep.run.kept import PlannedClip, are_planned, kept_clips
from flowprep.shard.plan import PlanRow
from flowprep.shard.removed import Removed, name_sha256

MANY = settings(max_examples=150, deadline=None)
BASES = [Fraction(1, n) for n in (25, 1000, 12800, 90000, 10**9, 2**31 - 1)] + [Fraction(7, 3)]
RATES = [0.0, 0.001, 10.0, 12.5, 25.0, 29.97, 30.0, 60.0, 1000.0]

Row = tuple[str, str, str, str, int]


# --- the oracle: one frame after the other, in fractions ---------------------------------------


def taken(video: Video, rules: Settings) -> list[Fraction]:
    """Times in ticks of the frames that are kept."""
    media = video.media
    assert media is not None
    pts = [Fraction(int(p)) for p in media.pts]
    origin = pts[0] if pts else Fraction(0)
    low, end = origin, Fraction(media.end_pts)
    if video.range_start_s is not None:
        low += Fraction(video.range_start_s) / media.time_base
    if video.range_end_s is not None:
        end = min(end, origin + Fraction(video.range_end_s) / media.time_base)
    inside = [p for p in pts if low <= p < end]
    if not rules.fps:
        return inside[:: rules.stride]
    step = 1 / (media.time_base * Fraction(rules.fps).limit_denominator(1001))
    kept = []
    for i, p in enumerate(inside):
        after = (p + inside[i + 1]) / 2 if i + 1 < len(inside) else end
        before = (inside[i - 1] + p) / 2 if i else inside[0] - 1
        # the points of the grid in (before, after] (the last frame's end is not one of its own)
        last = (after - inside[0]) // step
        if i + 1 == len(inside) and inside[0] + last * step == end:
            last -= 1
        if last > (before - inside[0]) // step and last >= 0:
            kept.append(p)
    return kept


def nearest(times: list[Fraction], wanted: Fraction) -> int:
    return min(range(len(times)), key=lambda i: (abs(times[i] - wanted), i))


def lengths(times: list[Fraction], time_base: Fraction, rules: Settings) -> list[int]:
    """Frames of each clip."""
    if len(times) < 2:
        return [len(times)]
    if rules.clip_frames:
        size, step = rules.clip_frames, rules.clip_stride or rules.clip_frames
        whole = [size for start in range(0, len(times), step) if start + size <= len(times)]
        return whole or [len(times)]
    limit = Fraction(rules.clip_max_s) // time_base
    span = times[-1] - times[0]
    fewest = max(1, -(-span // max(1, limit)))
    for n in (fewest, fewest + 1):
        if n >= len(times):
            break
        wanted = [times[0] + span * k / n for k in range(n + 1)]
        borders = sorted({nearest(times, point) for point in wanted})
        if all(times[b] - times[a] <= limit for a, b in pairwise(borders)):
            return [b - a + 1 for a, b in pairwise(borders)]
    found, start = [], 0
    while start < len(times) - 1:
        stop = start + 1
        while stop + 1 < len(times) and times[stop + 1] - times[start] <= limit:
            stop += 1
        found.append(stop - start + 1)
        start = stop
    return found


def expected(videos: list[Video], rules: Settings) -> list[Row]:
    rows = []
    for video in videos:
        sizes = [0]
        if video.media is not None:
            sizes = lengths(taken(video, rules), video.media.time_base, rules)
        identity = video.path
        if (video.range_start_s, video.range_end_s) != (None, None):
            identity += f"#{video.range_start_s}-{video.range_end_s}"
        digest = hashlib.sha256(identity.encode()).hexdigest()[:10]
        stem = PurePosixPath(video.path).stem
        for number, size in enumerate(sizes):
            key = f"{stem}-{digest}-{number:04d}"
            rows.append((key, video.path, video.split, video.label, size))
    return rows


# --- any videos --------------------------------------------------------------------------------


@st.composite
def medias(draw: st.DrawFn) -> Media:
    """Constant or variable rate, from any start, with pauses, and now and then without an end."""
    base = draw(st.sampled_from(BASES))
    usual = max(1, round(Fraction(1, 30) / base))
    gap = st.one_of(st.just(usual), st.integers(1, 3 * usual), st.just(60 * usual))
    gaps = draw(
        st.one_of(st.lists(gap, max_size=30), st.integers(0, 40).map(lambda n: [usual] * n))
    )
    start = draw(st.sampled_from([0, 1, -7 * usual, 10**6]))
    pts = start + np.cumsum(np.array([0, *gaps], np.int64))
    last = draw(st.one_of(st.just(usual), st.integers(1, 5 * usual)))
    return media_of(pts, base, int(pts[-1]) + last)


def video(number: int, of: Media | None, **fields: object) -> Video:
    path, label, split = f"c/v{number:04d}.mp4", "ab"[number % 2], ("train", "val")[number % 3 // 2]
    found = Video(path=path, size_bytes=1, mtime_ns=1, label=label, split=split, media=of)
    return replace(found, **fields)


@st.composite
def many_videos(draw: st.DrawFn) -> list[Video]:
    videos = []
    for number in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(["plain", "plain", "plain", "range", "broken"]))
        fields: dict[str, object] = {}
        if kind == "range":
            start = draw(st.integers(0, 40)) / 32
            fields = {"range_start_s": start, "range_end_s": start + draw(st.integers(1, 64)) / 32}
        if kind == "broken":
            fields = {"reason": "truncated", "message": "cut"}
        videos.append(video(number, None if kind == "broken" else draw(medias()), **fields))
    return videos


RULES = st.one_of(
    st.builds(Settings, fps=st.sampled_from(RATES), clip_max_s=st.sampled_from([1.0, 1.5, 60.0])),
    st.builds(Settings, fps=st.just(0.0), stride=st.integers(1, 5)),
    st.builds(
        Settings,
        fps=st.sampled_from(RATES),
        clip_frames=st.integers(2, 12),
        clip_stride=st.integers(0, 9),
    ),
)


@MANY
@given(many_videos(), RULES)
def test_the_clips_planned_are_those_of_the_oracle(videos: list[Video], rules: Settings) -> None:
    left, clips = kept_clips(Manifest.of(videos), rules, Removed())
    assert [tuple(clip) for clip in clips] == expected(videos, rules)
    assert [v.path for v in left] == [v.path for v in videos]


@MANY
@given(many_videos(), RULES, st.data())
def test_removed_clips_are_not_planned_and_videos_without_one_go(
    videos: list[Video], rules: Settings, data: st.DataObject
) -> None:
    rows = expected(videos, rules)
    out = data.draw(st.sets(st.sampled_from(rows)))
    gone = Removed(frozenset((name_sha256(path), name_sha256(key)) for key, path, *_ in out))
    left, clips = kept_clips(Manifest.of(videos), rules, gone)
    staying = [row for row in rows if row not in out]
    assert [tuple(clip) for clip in clips] == staying
    assert [v.path for v in left] == list(dict.fromkeys(row[1] for row in staying))


@pytest.mark.parametrize("end_pts", [-5, 0, 1])
def test_a_single_frame_that_ends_before_it_begins(end_pts: int) -> None:
    """And no other video beside it."""
    videos = [video(0, media_of(np.array([3]), Fraction(1, 25), end_pts))]
    _, clips = kept_clips(Manifest.of(videos), Settings(), Removed())
    assert [clip.n_frames for clip in clips] == [0]


@pytest.mark.parametrize("fps", [25.0, 0.0])
def test_times_that_leave_64_bits_or_go_backwards(fps: float) -> None:
    """What a damaged file claims is planned as what it is cut into when its shard is made."""
    wild = [
        np.array([-(2**63) + 1, 0, 2**63 - 2]),
        np.array([0, 2**61, 2**62]),
        np.array([0, 40, 20, 60]),
        np.array([0, 0, 40, 80]),
    ]
    rules = Settings(fps=fps)
    videos = [
        video(n, media_of(pts, Fraction(1, 1000), int(pts[-1]) + 1)) for n, pts in enumerate(wild)
    ]
    for some in (videos[1:], videos[2:], videos[2:3]):
        _, clips = kept_clips(Manifest.of(some), rules, Removed())
        made = [(clip.key, clip.n_frames) for one in some for clip in clips_of(one, rules)]
        assert [(clip.key, clip.n_frames) for clip in clips] == made


# --- frame times -------------------------------------------------------------------------------


@MANY
@given(st.lists(st.integers(-(2**40), 2**40), max_size=50))
def test_packed_frame_times_come_back(steps: list[int]) -> None:
    pts = np.cumsum(np.array(steps, np.int64))
    assert unpack(pack(pts)).tolist() == pts.tolist()
    assert unpack(pack(np.sort(pts))).tolist() == np.sort(pts).tolist()


def test_frame_times_of_a_constant_rate_take_no_room() -> None:
    assert len(pack(np.arange(10**6) * 3003)) < 32
    jitter = np.sort(np.random.default_rng(0).integers(0, 30_000 * 100, 10**4))
    assert len(pack(jitter)) < 2 * len(jitter) + 32


@pytest.mark.parametrize("n", [0, 1, 1023, 1024, 1025, 2100])
def test_a_manifest_reads_back_whatever_part_is_asked_for(tmp_path: Path, n: int) -> None:
    path = tmp_path / "manifest.parquet"
    videos = [
        video(i, None if i % 7 == 3 else media_of(np.arange(i % 5) * 40, Fraction(1, 1000), 200))
        for i in range(n)
    ]
    path.write_bytes(manifest.to_bytes(videos))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    for stored in (manifest.load(path), manifest.load(path, sha256)):
        assert [v.path for v in stored] == [v.path for v in videos]
        for place in {0, n // 2, n - 1} if n else ():
            got, want = stored[place], videos[place]
            assert (got.media is None) == (want.media is None)
            assert not got.media or got.media.pts.tolist() == want.media.pts.tolist()


def test_a_plan_has_the_clips_exactly_or_not() -> None:
    clips = [PlannedClip(f"k-0000-{i:04d}", "p", "train", "a", 5) for i in range(3)]
    rows = [PlanRow(shard="train-000000", **clip._asdict()) for clip in clips]
    said = {clip.key: clip for clip in clips}
    assert are_planned(rows, said)
    assert not are_planned(rows[1:], said)
    assert not are_planned([*rows, rows[0]], said)
    assert not are_planned([replace(rows[0], label="b"), *rows[1:]], said)
