"""Which frames of a video become which clips. Exact before anything is decoded."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from fractions import Fraction
from itertools import pairwise
from pathlib import PurePosixPath

import numpy as np

from flowprep.config import Settings
from flowprep.records import I64, Clip, Media, Video

MAX_SLUG = 60


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
    return [_clip(video, number, part) for number, part in enumerate(parts)]


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
    """`<slug>-<10 hex>-<number>`, [a-z0-9_-], at most 90 characters.

    The hex digits are of sha256 over the relative path and, where one is given, the time range.
    """
    stem = unicodedata.normalize("NFKD", PurePosixPath(video.path).stem)
    ascii_stem = stem.encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9_]+", "-", ascii_stem)[:MAX_SLUG].strip("-") or "video"
    identity = video.path
    if video.range_start_s is not None or video.range_end_s is not None:
        identity += f"#{video.range_start_s}-{video.range_end_s}"
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
    first, end_pts = _range_ticks(media, start_s, end_s)
    inside = np.flatnonzero((media.pts >= first) & (media.pts < end_pts))
    if not len(inside):
        return inside
    if not settings.fps:
        return inside[:: settings.stride]
    rate = Fraction(settings.fps).limit_denominator(1001)
    per_tick = media.time_base * rate  # grid steps in a tick
    ticks = media.pts[inside] - media.pts[inside[0]]
    end = int(end_pts - media.pts[inside[0]]) * per_tick.numerator
    grid = np.arange(-(-end // per_tick.denominator), dtype=np.int64) * per_tick.denominator
    middles = (ticks[:-1] + ticks[1:]) * per_tick.numerator
    return inside[np.unique(np.searchsorted(middles, 2 * grid, side="left"))]


def _range_ticks(media: Media, start_s: float | None, end_s: float | None) -> tuple[int, int]:
    """The range in ticks; its times count from the first frame."""
    origin = int(media.pts[0]) if media.n_frames else 0
    first, end = origin, media.end_pts
    if start_s is not None:
        first += int(np.ceil(start_s / media.time_base - 1e-6))
    if end_s is not None:
        end = min(end, origin + int(np.ceil(end_s / media.time_base - 1e-6)))
    return first, end


def pieces(media: Media, taken: I64, settings: Settings) -> list[I64]:
    """Equal pieces of at most `clip_max_s` seconds that share their border frames."""
    times = media.pts[taken]
    limit = settings.clip_max_s / media.time_base
    span = int(times[-1] - times[0])
    n_pieces = max(1, int(-(-span // limit)))
    while True:
        borders = np.unique(
            _nearest(times, [times[0] + span * j / n_pieces for j in range(n_pieces + 1)])
        )
        if (
            n_pieces >= len(times)
            or max(times[b] - times[a] for a, b in pairwise(borders)) <= limit
        ):
            return [taken[a : b + 1] for a, b in pairwise(borders)]
        n_pieces += 1


def _nearest(times: I64, wanted: list[float]) -> I64:
    return np.searchsorted((times[:-1] + times[1:]) / 2, np.array(wanted), side="left")


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
