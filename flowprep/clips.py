"""Which frames of a video become which clips. Exact before anything is decoded."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from fractions import Fraction
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from flowprep.config import Settings
from flowprep.records import I64, Clip, Media, Video

MAX_SLUG = 60
UNFIT = re.compile(r"[^a-z0-9_]+")


def clips_of(video: Video, settings: Settings) -> list[Clip]:
    """The clips of one video, at least one: an unusable video is one with a reason."""
    if video.media is None:
        return [_clip(video, 0, np.empty(0, np.int64), video.reason, video.message)]
    taken = taken_frames(video.media, settings, video.range_start_s, video.range_end_s)
    if len(taken) < 2:
        what = f"{len(taken)} of {video.media.n_frames} frames left, a flow needs two"
        return [_clip(video, 0, taken, "too-short", what)]
    parts = (
        windows(taken, settings) if settings.clip_frames else pieces(video.media, taken, settings)
    )
    return [
        _clip(video, number, part, video.reason, video.message) for number, part in enumerate(parts)
    ]


def equal_clips(
    pts: I64, n_frames: I64, end_pts: I64, time_base: Fraction, settings: Settings
) -> tuple[I64, I64]:
    """(clips of each video, frames of each of them), int64 [n_videos]: what `clips_of` says, of
    many videos at once.

    0 clips where they are not all of one length, or the frame times need a closer look. `pts` int64
    [sum of n_frames] holds the times of videos without a range, one behind the other; each has a
    frame.
    """
    last = np.cumsum(n_frames) - 1
    first = last - n_frames + 1
    ticks = pts - np.repeat(pts[first], n_frames)
    end = end_pts - pts[first]
    taken = _taken_of_all(ticks, first, last, end, time_base, settings)
    n_taken = np.add.reduceat(taken, first, dtype=np.int64)
    last_tick = np.maximum.reduceat(ticks * taken, first)
    is_usual = _are_usual(ticks, first, last, end, _rate(settings, time_base)) & (n_taken > 1)
    if settings.clip_frames:
        size, step = settings.clip_frames, settings.clip_stride or settings.clip_frames
        n_clips = np.maximum(n_taken - size, 0) // step + 1
        return n_clips * is_usual, np.minimum(n_taken, size)
    is_whole = last_tick <= _longest(settings, time_base)
    return (is_whole & is_usual).astype(np.int64), n_taken


def _taken_of_all(
    ticks: I64, first: I64, last: I64, end: I64, time_base: Fraction, settings: Settings
) -> npt.NDArray:
    """Which frames are taken, bool, one for each."""
    if not settings.fps:
        number = np.arange(len(ticks)) - np.repeat(first, last - first + 1)
        return number % settings.stride == 0
    rate = _rate(settings, time_base)
    last_grid_point = -(-end * rate.numerator // rate.denominator) - 1
    return _is_nearest(ticks, last, last_grid_point, rate)


def _are_usual(ticks: I64, first: I64, last: I64, end: I64, rate: Fraction) -> npt.NDArray:
    """Whether the frames of each video come one after the other, and their products fit."""
    steps = np.diff(ticks, append=0)
    steps[last] = end - ticks[last]
    fits = (end > 0) & (end < (1 << 62) // max(1, rate.numerator))
    return fits & (np.minimum.reduceat(steps, first) > 0)


def _clip(video: Video, number: int, taken: I64, reason: str = "", message: str = "") -> Clip:
    return Clip(
        key=clip_key(video, number),
        path=video.path,
        number=number,
        label=video.label,
        split=video.split,
        source_index=taken,
        reason=reason,
        message=message,
    )


def clip_key(video: Video, number: int) -> str:
    """The key of a clip of a video, by its number."""
    return key_of(video.path, number, video.range_start_s, video.range_end_s)


def key_of(path: str, number: int, start_s: float | None = None, end_s: float | None = None) -> str:
    """`<slug>-<10 hex>-<number>`, [a-z0-9_-], at most 90 characters.

    The hex digits are of sha256 over the relative path and, where one is given, the time range.
    """
    name = path.rpartition("/")[2]
    dot = name.rfind(".")
    stem = name[:dot] if dot > 0 else name
    ascii_stem = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode().lower()
    slug = UNFIT.sub("-", ascii_stem)[:MAX_SLUG].strip("-") or "video"
    identity = path
    if start_s is not None or end_s is not None:
        identity += f"#{start_s}-{end_s}"
    digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{slug}-{digest[:10]}-{number:04d}"


def taken_frames(
    media: Media, settings: Settings, start_s: float | None = None, end_s: float | None = None
) -> I64:
    """Source indices int64 [T], ascending, of the frames that are kept.

    With a rate: the frame nearest to each t0 + k/fps inside [t0, end), the earlier one of two
    equally near, each at most once; t0 is the first frame of the range, end the end of its last.
    Native: every `stride`-th frame. Integer arithmetic throughout, so a tie is a tie.
    """
    first, end = _range_ticks(media, start_s, end_s)
    inside = np.flatnonzero((media.pts >= math.ceil(first)) & (media.pts < math.ceil(end)))
    if not len(inside):
        return inside
    if not settings.fps:
        return inside[:: settings.stride]
    per_tick = _rate(settings, media.time_base)
    start = int(media.pts[inside[0]])
    ticks = media.pts[inside] - start
    if 2 * math.ceil(end - start) * per_tick.numerator >= 1 << 63:
        ticks = ticks.astype(object)  # whole numbers of any size, for time bases nobody means
    last_grid_point = np.array([math.ceil((end - start) * per_tick) - 1], ticks.dtype)
    return inside[_is_nearest(ticks, np.array([len(ticks) - 1]), last_grid_point, per_tick)]


def _rate(settings: Settings, time_base: Fraction) -> Fraction:
    """Grid steps in a tick; 0 for the native rate."""
    return time_base * Fraction(settings.fps).limit_denominator(1001)


def _is_nearest(ticks: I64, last: I64, last_grid_point: I64, per_tick: Fraction) -> npt.NDArray:
    """Which frames are the nearest to a point of their video's grid: bool, one for each.

    `ticks` of several videos, one behind the other; `last` is where each ends, and
    `last_grid_point` the last point of its grid.
    """
    # a frame is nearest to what lies behind the middle before it, up to the middle after it
    furthest = np.empty_like(ticks)
    furthest[:-1] = (ticks[:-1] + ticks[1:]) * per_tick.numerator // (2 * per_tick.denominator)
    furthest[last] = last_grid_point
    before = np.roll(furthest, 1)
    before[0] = -1
    before[last[:-1] + 1] = -1
    return furthest > before


def _range_ticks(
    media: Media, start_s: float | None, end_s: float | None
) -> tuple[Fraction, Fraction]:
    """The range in ticks; its times count from the first frame, and mean the nearest decimals."""
    origin = Fraction(int(media.pts[0]) if media.n_frames else 0)
    first, end = origin, Fraction(media.end_pts)
    if end_s is not None:
        end = min(end, origin + Fraction(end_s).limit_denominator(10**6) / media.time_base)
    if start_s is not None:
        first += Fraction(start_s).limit_denominator(10**6) / media.time_base
    return min(first, end), end


def pieces(media: Media, taken: I64, settings: Settings) -> list[I64]:
    """Equal pieces of at most `clip_max_s` seconds that share their border frames.

    Where the frame times do not allow equal ones, each is as long as it may be; a pair that is
    longer than the limit is a piece of its own.
    """
    times = media.pts[taken]
    limit = _longest(settings, media.time_base)
    if times[-1] - times[0] <= limit:
        return [taken]
    fewest = max(1, -(-int(times[-1] - times[0]) // max(1, limit)))
    for n_pieces in range(fewest, min(fewest + 2, len(times))):
        borders = _equal_borders(times, n_pieces)
        if np.diff(times[borders]).max() <= limit:
            break
    else:
        borders = _longest_borders(times, limit)
    return [taken[a : b + 1] for a, b in pairwise(borders)]


def _longest(settings: Settings, time_base: Fraction) -> int:
    """Ticks that a piece may last."""
    return int(Fraction(settings.clip_max_s) / time_base)


def _equal_borders(times: I64, n_pieces: int) -> I64:
    wanted = times[0] + (times[-1] - times[0]) * np.arange(n_pieces + 1) / n_pieces
    return np.unique(np.searchsorted((times[:-1] + times[1:]) / 2, wanted, side="left"))


def _longest_borders(times: I64, limit: int) -> I64:
    borders = [0]
    while borders[-1] < len(times) - 1:
        furthest = int(np.searchsorted(times, times[borders[-1]] + limit, side="right")) - 1
        borders.append(max(furthest, borders[-1] + 1))
    return np.array(borders)


def windows(taken: I64, settings: Settings) -> list[I64]:
    """Windows of `clip_frames` frames every `clip_stride` (by default end to end).

    A video shorter than one window gives one short clip; what is left after the last whole window
    of a longer one is not used.
    """
    size = settings.clip_frames
    step = settings.clip_stride or size
    if len(taken) < size:
        return [taken]
    return [taken[i : i + size] for i in range(0, len(taken) - size + 1, step)]
