"""When each frame of a stream is shown: the one rule that probing and decoding share.

A stream is *regular* when every frame has a presentation time later than the one before. Its
Media has the stream's time base, and a frame is known by its exact time.

Otherwise (AVI without times, duplicated or backward times) the decoding times that the decoder
hands on are used if they have fewer faults, a frame still without a usable time gets that of the
frame before it plus the average frame time, and frames are known by their place in the stream. Such
a Media has half the stream's time base, which marks it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from flowprep.decode.opening import OpenVideo, check_count
from flowprep.errors import ClipError
from flowprep.records import I64

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame

IRREGULAR_DIVISOR = 2
ONE_PACKET_ONE_FRAME = frozenset({"h264", "hevc", "av1", "vp9", "mjpeg", "prores", "dnxhd", "vvc"})
INDEXED_FORMATS = frozenset({"mov", "matroska"})


@dataclass(frozen=True, kw_only=True)
class FrameTimes:
    """Presentation times of all frames of a stream, ascending and unique."""

    pts: I64
    end_pts: int
    time_base: Fraction
    first: VideoFrame


@dataclass(kw_only=True)
class Packets:
    """What the packets of a stream say, and its first frame."""

    pts: list[int | None] = field(default_factory=list)
    duration: list[int] = field(default_factory=list)
    suspicious: bool = False  # a packet is marked for discarding, or as damaged
    n_damaged: int = 0
    first: VideoFrame | None = None

    def add(self, packet: Packet) -> None:
        self.pts.append(packet.pts)
        self.duration.append(packet.duration or 0)
        self.suspicious |= packet.is_discard or packet.is_corrupt
        self.n_damaged += packet.is_corrupt

    @property
    def n_intact(self) -> int:
        return len(self.pts) - self.n_damaged


def is_regular(video: OpenVideo, time_base: Fraction) -> bool:
    """Whether a Media with this time base knows its frames by time (else by place)."""
    own = video.stream.time_base or Fraction(1)
    if time_base not in (own, own / IRREGULAR_DIVISOR):
        raise ClipError(
            "changed", f"{video.path} was probed with time base {time_base}, now it has {own}"
        )
    return time_base == own


def decode_packets(video: OpenVideo, packets: Iterable[Packet]) -> Iterator[VideoFrame]:
    """All frames of the packets in presentation order."""
    for packet in packets:
        yield from video.context.decode(packet)
    yield from video.context.decode(None)


def scan_packets(video: OpenVideo) -> Packets:
    """List the packets, decoding only until the first frame comes out."""
    found = Packets()
    for packet in video.packets():
        found.add(packet)
        check_count(video.path, len(found.pts), video.max_frames)
        if found.first is None:
            found.first = next(iter(video.context.decode(packet)), None)
    if found.first is None:
        found.first = next(iter(video.context.decode(None)), None)
    return found


def times_from_packets(video: OpenVideo, found: Packets) -> FrameTimes | None:
    """The frame times, when the packets alone can be trusted to tell them."""
    first = found.first
    if (
        first is None
        or found.suspicious
        or None in found.pts
        or video.format not in INDEXED_FORMATS
        or video.codec not in ONE_PACKET_ONE_FRAME
        or first.interlaced_frame
    ):
        return None
    pts = np.array(found.pts, np.int64)
    order = np.argsort(pts)
    pts = pts[order]
    if first.pts != pts[0] or np.any(np.diff(pts) <= 0):
        return None
    return _times(video, pts, found.duration[order[-1]], first)


def times_from_frames(video: OpenVideo) -> FrameTimes | None:
    """The frame times from decoding everything; None when not one frame comes out."""
    first: VideoFrame | None = None
    last_duration = 0
    pts: list[int | None] = []
    dts: list[int | None] = []
    for frame in decode_packets(video, video.packets()):
        first = first or frame
        pts.append(frame.pts)
        dts.append(frame.dts)
        last_duration = getattr(frame, "duration", 0) or 0
        check_count(video.path, len(pts), video.max_frames)
    if first is None:
        return None
    if not _faults(pts):
        return _times(video, np.array(pts, np.int64), last_duration, first)
    filled = _fill(min(pts, dts, key=_faults), video.frame_ticks * IRREGULAR_DIVISOR)
    return _times(video, filled, last_duration * IRREGULAR_DIVISOR, first, IRREGULAR_DIVISOR)


def _faults(times: list[int | None]) -> int:
    """How many frames have no time, or none later than the frame before."""
    later = sum(a is not None and b is not None and a < b for a, b in pairwise(times))
    return len(times) - later - (times[0] is not None)


def _fill(raw: list[int | None], step: float) -> I64:
    """Ascending times in finer ticks: a frame's own when later than the last, else one step on."""
    out: list[int] = []
    last = -step
    for pts in raw:
        own = None if pts is None else pts * IRREGULAR_DIVISOR
        last = own if own is not None and (not out or own > last) else last + max(step, 1)
        out.append(round(last))
    return np.array(out, np.int64)


def _times(
    video: OpenVideo, pts: I64, last_duration: int, first: VideoFrame, divisor: int = 1
) -> FrameTimes:
    """`last_duration` may be 0 or a tick, which muxers write when they do not know better."""
    spacing = (int(pts[-1]) - int(pts[0])) / (len(pts) - 1) if len(pts) > 1 else 0
    known = last_duration if last_duration > divisor else 0
    step = known or spacing or video.frame_ticks * divisor
    return FrameTimes(
        pts=pts,
        end_pts=int(pts[-1]) + max(1, round(step)),
        time_base=(video.stream.time_base or Fraction(1)) / divisor,
        first=first,
    )
