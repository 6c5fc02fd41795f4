"""Which frames become which clips, against a slow oracle in exact fractions."""

from __future__ import annotations

import re
import time
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from medias import media_of

from flowprep.clips import clip_key, clips_of, pieces, taken_frames, windows
from flowprep.config import Settings
from flowprep.records import Media, Video

MANY = settings(max_examples=200, deadline=None)
TIME_BASES = st.sampled_from(
    [Fraction(1, n) for n in (25, 600, 1000, 12800, 15360, 90000, 10**9)]
    + [Fraction(1001, 30000), Fraction(1, 10**6)]
)
RATES = st.sampled_from(
    [Fraction(n) for n in (1, 10, 12, 24, 25, 30, 50, 60)]
    + [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(25, 2), Fraction(1, 10)]
)


def media(
    pts: list[int], time_base: Fraction = Fraction(1, 1000), last: int | None = None
) -> Media:
    end_pts = (pts[-1] if pts else 0) + (last if last is not None else 1)
    return media_of(pts, time_base, end_pts)


def regular(rate: Fraction, n: int, time_base: Fraction | None = None) -> Media:
    """n frames at exactly `rate`, as far as the time base allows."""
    base = time_base or 1 / rate
    return media([round(i / rate / base) for i in range(n)], base, max(1, round(1 / rate / base)))


def video(path: str = "a.mp4", of: Media | None = None, **fields: object) -> Video:
    return Video(path=path, size_bytes=1, mtime_ns=1, media=of, **fields)  # type: ignore[arg-type]


def oracle(
    of: Media, rate: Fraction, start_s: Fraction | None, end_s: Fraction | None
) -> list[int]:
    """For each k the frame nearest to t0 + k / rate, the earlier on ties, inside [t0, end)."""
    seconds = [int(p) * of.time_base for p in of.pts]
    low = seconds[0] + (start_s or 0)
    end = int(of.end_pts) * of.time_base
    if end_s is not None:
        end = min(end, seconds[0] + end_s)
    inside = [i for i, t in enumerate(seconds) if low <= t < end]
    found: set[int] = set()
    if not inside:
        return []
    t0, k = seconds[inside[0]], 0
    while (point := t0 + k / rate) < end:
        found.add(min(inside, key=lambda i: (abs(seconds[i] - point), i)))
        k += 1
    return sorted(found)


@st.composite
def any_media(draw: st.DrawFn) -> Media:
    """Constant or variable rate, from any start, with long pauses now and then."""
    base = draw(TIME_BASES)
    usual = max(1, round(Fraction(1, 30) / base))
    gap = st.one_of(st.just(usual), st.integers(1, 3 * usual), st.just(20 * usual))
    gaps = draw(st.lists(gap, max_size=25))
    start = draw(st.integers(-usual * 10, usual * 10))
    pts = [start, *(start + int(n) for n in np.cumsum(np.array(gaps, np.int64)))]
    return media(pts, base, draw(st.integers(1, 2 * usual)))


@MANY
@given(any_media(), RATES)
def test_the_frames_taken_are_those_of_the_oracle(of: Media, rate: Fraction) -> None:
    taken = taken_frames(of, Settings(fps=float(rate)))
    assert taken.tolist() == oracle(of, rate, None, None)
    assert taken.dtype == np.int64


@MANY
@given(any_media(), RATES, st.integers(0, 40), st.integers(1, 40))
def test_a_time_range_counts_from_the_first_frame(
    of: Media, rate: Fraction, start: int, length: int
) -> None:
    start_s, end_s = Fraction(start, 32), Fraction(start + length, 32)  # exact as floats
    taken = taken_frames(of, Settings(fps=float(rate)), float(start_s), float(end_s))
    assert taken.tolist() == oracle(of, rate, start_s, end_s)


@MANY
@given(any_media(), RATES)
def test_no_frame_comes_twice_and_the_first_always(of: Media, rate: Fraction) -> None:
    taken = taken_frames(of, Settings(fps=float(rate)))
    assert taken[0] == 0
    assert np.all(np.diff(taken) > 0)


@MANY
@given(st.lists(st.integers(40, 400), max_size=40), st.integers(40, 90))
def test_a_slower_source_keeps_all_its_frames(gaps_ms: list[int], last_ms: int) -> None:
    pts = [7, *(7 + int(n) for n in np.cumsum(np.array(gaps_ms, np.int64)))]
    taken = taken_frames(media(pts, last=last_ms), Settings(fps=25.0))
    assert taken.tolist() == list(range(len(pts)))


@pytest.mark.parametrize(
    ("source", "fps", "first", "n"),
    [
        (Fraction(24), 25.0, [0, 1, 2, 3, 4, 5], 240),
        (Fraction(25), 25.0, [0, 1, 2, 3, 4, 5], 240),
        (Fraction(30), 25.0, [0, 1, 2, 4, 5, 6, 7, 8, 10], 200),
        (Fraction(25), 10.0, [0, 2, 5, 7, 10, 12], 96),  # 2.5 is a tie: the earlier
        (Fraction(50), 25.0, [0, 2, 4, 6, 8], 120),
        (Fraction(30000, 1001), 29.97, [0, 1, 2, 3, 4], 240),
        (Fraction(30000, 1001), 25.0, [0, 1, 2, 4, 5, 6], 200),
        (Fraction(60), 29.97, [0, 2, 4, 6, 8], 120),
    ],
)
def test_well_known_rates(source: Fraction, fps: float, first: list[int], n: int) -> None:
    taken = taken_frames(regular(source, 240), Settings(fps=fps)).tolist()
    assert taken[: len(first)] == first
    assert len(taken) == n


def test_rounded_times_of_the_same_rate_lose_no_frame() -> None:
    """Matroska counts milliseconds: 0, 33, 67, 100, ..."""
    rate = Fraction(30000, 1001)
    taken = taken_frames(regular(rate, 5000, Fraction(1, 1000)), Settings(fps=29.97))
    assert taken.tolist() == list(range(5000))


def test_a_day_in_nanoseconds_does_not_overflow() -> None:
    """A burst of frames 10 ms apart at the end of it: one for each step of 1/29.97 s stays."""
    day, step = 86_400 * 10**9, Fraction(100, 2997) * 10**9
    pts = [0, *range(day, day + 90 * 10**6, 10**7)]
    middles = [Fraction(a + b, 2) for a, b in pairwise(pts)]
    points = [k * step for k in range(int(day / step) - 2, int(day / step) + 10)]
    in_burst = {sum(m < p for m in middles) for p in points if p < pts[-1] + 10**7}
    taken = taken_frames(media(pts, Fraction(1, 10**9), 10**7), Settings(fps=29.97))
    assert taken.tolist() == sorted({0} | in_burst)
    assert len(taken) == 1 + 3  # 90 ms hold 2.7 steps


@pytest.mark.parametrize(("at_s", "n"), [(0.1, 3), (0.12, 3), (0.13, 4), (0.28, 7), (0.56, 14)])
def test_a_decimal_border_is_that_decimal(at_s: float, n: int) -> None:
    """Frame 7 begins at 0.28; as a float that is a little more, 0.12 a little less."""
    of = regular(Fraction(25), 50, Fraction(1, 12800))
    for settings_ in (Settings(), Settings(fps=0.0)):
        assert taken_frames(of, settings_, None, at_s).tolist() == list(range(n))
        assert taken_frames(of, settings_, at_s, None).tolist() == list(range(n, 50))


def test_native_takes_every_frame_and_stride_every_kth() -> None:
    of = media([0, 1, 50, 51, 52, 400])
    assert taken_frames(of, Settings(fps=0.0)).tolist() == [0, 1, 2, 3, 4, 5]
    assert taken_frames(of, Settings(fps=0.0, stride=2)).tolist() == [0, 2, 4]
    assert taken_frames(of, Settings(fps=0.0, stride=2), 0.05, 0.4).tolist() == [2, 4]


def test_a_range_without_two_frames_is_too_short() -> None:
    of = regular(Fraction(25), 50)
    (clip,) = clips_of(video(of=of, range_start_s=90.0), Settings())
    assert (clip.reason, clip.n_frames) == ("too-short", 0)
    assert "0 of 50 frames" in clip.message
    (clip,) = clips_of(video(of=of, range_start_s=1.96), Settings())
    assert (clip.reason, clip.n_frames) == ("too-short", 1)


def test_an_unusable_video_is_one_clip_with_its_reason() -> None:
    (clip,) = clips_of(video(reason="truncated", message="cut"), Settings())
    assert (clip.reason, clip.message, clip.n_frames) == ("truncated", "cut", 0)


# --- pieces and windows -----------------------------------------------------------------------


@MANY
@given(
    st.lists(st.sampled_from([1, 33, 34, 40, 500, 999, 1000, 1001, 2500]), min_size=1, max_size=90),
    st.sampled_from([1.0, 1.5, 2.0, 60.0]),
)
def test_pieces_cover_every_pair_once_and_share_their_borders(
    gaps_ms: list[int], limit_s: float
) -> None:
    pts = [0, *np.cumsum(gaps_ms).tolist()]
    of, taken = media(pts), np.arange(len(pts))
    parts = pieces(of, taken, Settings(clip_max_s=limit_s))
    assert [pair for p in parts for pair in pairwise(p.tolist())] == list(pairwise(taken.tolist()))
    assert all(a[-1] == b[0] for a, b in pairwise(parts))
    for part in parts:
        assert len(part) >= 2
        assert pts[part[-1]] - pts[part[0]] <= 1000 * limit_s or len(part) == 2


@pytest.mark.parametrize(
    ("frames", "lengths"),
    [
        (2, [2]),
        (1501, [1501]),  # 60 s from the first to the last frame
        (1502, [751, 752]),
        (4501, [1501, 1501, 1501]),
    ],
)
def test_a_long_video_is_cut_into_equal_pieces(frames: int, lengths: list[int]) -> None:
    clips = clips_of(video(of=regular(Fraction(25), frames)), Settings())
    assert sorted(c.n_frames for c in clips) == lengths
    assert [c.number for c in clips] == list(range(len(lengths)))
    assert sum(c.n_frames - 1 for c in clips) == frames - 1


@pytest.mark.parametrize("pause_s", [61, 5000])
def test_a_pause_longer_than_a_piece_costs_no_time(pause_s: int) -> None:
    """A camera that stood still: once, trying one more piece each time took hours."""
    n = 50_000
    pts = np.arange(n) * 40
    pts[n // 2 :] += 1000 * pause_s
    of = media(pts.tolist())
    started = time.perf_counter()
    parts = pieces(of, np.arange(n), Settings())
    assert time.perf_counter() - started < 1
    spans = [int(of.pts[p[-1]] - of.pts[p[0]]) for p in parts]
    assert sorted(spans)[-2] <= 60_000
    assert len(parts) < 2 * (n * 40 / 60_000) + 3


@MANY
@given(st.integers(2, 60), st.integers(2, 20), st.integers(0, 30))
def test_windows_lie_at_every_stride_and_are_whole(n: int, size: int, stride: int) -> None:
    taken = np.arange(100, 100 + n)
    parts = windows(taken, Settings(clip_frames=size, clip_stride=stride))
    if n < size:
        assert [p.tolist() for p in parts] == [taken.tolist()]
        return
    starts = [s for s in range(n) if s % (stride or size) == 0 and s + size <= n]
    assert [p.tolist() for p in parts] == [list(range(100 + s, 100 + s + size)) for s in starts]


# --- keys -------------------------------------------------------------------------------------

KEY = re.compile(r"[a-z0-9_-]{1,90}")


@MANY
@given(
    st.text(
        st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=300
    ),
    st.integers(0, 10**6),
)
def test_every_name_gets_a_key_that_any_file_system_takes(name: str, number: int) -> None:
    key = clip_key(video(f"folder/{name}"), number)
    assert KEY.fullmatch(key)
    assert "." not in key


def test_names_that_look_alike_get_different_keys() -> None:
    paths = ["a b.mp4", "a_b.mp4", "a-b.mp4", "A b.mp4", "a  b.mp4", "a b.mkv", "x/a b.mp4"]
    paths += ["é.mp4", "e\u0301.mp4", "日本.mp4", "日木.mp4", ".mp4", "-.mp4", "z" * 200 + "1.mp4"]
    paths += ["z" * 200 + "2.mp4"]
    keys = [clip_key(video(path), 0) for path in paths]
    assert len({key.casefold() for key in keys}) == len(paths)


def test_ranges_of_one_video_get_different_keys() -> None:
    ranges = [(None, None), (0.0, None), (None, 1.0), (0.0, 1.0), (1.0, 2.0)]
    keys = {clip_key(video(range_start_s=a, range_end_s=b), 0) for a, b in ranges}
    assert len(keys) == len(ranges)


def test_a_key_says_the_name_and_depends_on_the_path_alone() -> None:
    of = regular(Fraction(25), 30)
    key = clips_of(video("Walk/Été 1.mp4", of=of), Settings())[0].key
    assert re.fullmatch(r"ete-1-[0-9a-f]{10}-0000", key)
    other = video("Walk/Été 1.mp4", of=of, label="walk", split="val")
    assert clips_of(other, Settings(fps=10.0))[0].key == key


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(60000, 1001)])
def test_time_bases_that_nobody_means_are_exact_too(rate: Fraction) -> None:
    """The products of a week's ticks leave 64 bits; frames a seventh of a second apart all stay."""
    base = Fraction(1, 2**31 - 1)
    ticks = [round(Fraction(k, 7) / base) for k in (0, 1, 2, 3, 4 * 10**6, 4 * 10**6 + 1)]
    of = media(ticks, base, ticks[1])
    taken = taken_frames(of, Settings(fps=float(rate)))
    assert taken.dtype.kind == "i"
    assert taken.tolist() == list(range(6))
