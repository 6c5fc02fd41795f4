"""List the frames of a file and describe its picture, decoding as little as can be trusted."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction

from flowprep.decode.base import Limits
from flowprep.decode.color import rotation_deg, transfer_name
from flowprep.decode.opening import OpenVideo, check_size, open_video
from flowprep.decode.structure import missing_bytes
from flowprep.decode.timing import (
    FrameTimes,
    Packets,
    scan_packets,
    times_from_frames,
    times_from_packets,
)
from flowprep.errors import ClipError
from flowprep.records import Media

AV_TIME_BASE = 1_000_000
MAX_TICKS = 1 << 62
SLACK_S = 1.0
SLACK_SHARE = 0.02
STATED_DURATION = frozenset({"mov", "matroska", "avi", "flv", "asf"})
"""Containers that write their duration down; the others' is an estimate from the bytes present."""


def probe(path: str, *, threads: int, limits: Limits) -> Media:
    """What the file holds. See timing.py for how frame times are found.

    A file is `truncated` when its sample table lists more than its packets (mp4, mov), when its
    outermost element ends beyond the file (avi if frames lack too, matroska, gif, asf, fragmented
    mp4), or when no stream comes within max(1 s, 2 %) of the duration its header states (flv, and
    all of these). MPEG transport and program streams say nothing about their length: cut off, they
    are whole.
    """
    with open_video(path, threads=threads, limits=limits) as video:
        packets = scan_packets(video)
        check_complete(video, packets, limits)
        times = times_from_packets(video, packets)
        if times is not None:
            return _media(video, times, limits)
    with open_video(path, threads=threads, limits=limits) as video:
        times = times_from_frames(video)
        if times is None:
            raise ClipError("decode-error", f"{path}: the decoder gives no frame")
        return _media(video, times, limits)


def _media(video: OpenVideo, times: FrameTimes, limits: Limits) -> Media:
    frame, stream = times.first, video.stream
    check_size(video.path, frame.width, frame.height, limits)
    check_duration(video.path, times, limits)
    turn = rotation_deg(frame, stream)
    sideways = turn % 180 == 90
    sar = Fraction(stream.sample_aspect_ratio or 1) or Fraction(1)
    return Media(
        container=video.container.format.name,
        codec=video.codec,
        pix_fmt=frame.format.name,
        width=frame.height if sideways else frame.width,
        height=frame.width if sideways else frame.height,
        rotation_deg=turn,
        sar=1 / sar if sideways else sar,
        transfer=transfer_name(video.context),
        time_base=times.time_base,
        pts=times.pts,
        end_pts=times.end_pts,
    )


def check_duration(path: str, times: FrameTimes, limits: Limits) -> None:
    """Refuse times that no recording has, and with which nobody can calculate."""
    span_s = (times.end_pts - int(times.pts[0])) * times.time_base
    if span_s > limits.max_duration_s or abs(times.end_pts) > MAX_TICKS:
        raise ClipError(
            "too-large",
            f"{path} claims to last {float(span_s):.0f} s; allowed are {limits.max_duration_s:.0f}",
        )


def check_complete(video: OpenVideo, packets: Packets, limits: Limits) -> None:
    """Raise `truncated` when the container says there should be more than there is."""
    stated = video.stream.frames
    if video.format == "mov" and stated >= len(packets.pts):
        if packets.n_intact < stated:
            found = _samples_present(video, limits)
            if found < stated:
                raise _truncated(video, f"{found} of the {stated} frames it lists are there")
        return
    lost = missing_bytes(video.path)
    if lost and not (video.format == "avi" and packets.n_intact >= stated):
        raise _truncated(video, f"{lost} bytes that its header announces are missing")
    _check_duration(video, packets, limits)


def _truncated(video: OpenVideo, what: str) -> ClipError:
    return ClipError("truncated", f"{video.path} ends early: {what}")


def _samples_present(video: OpenVideo, limits: Limits) -> int:
    """Samples of the table whose bytes exist, including those that an edit list hides.

    Up to the first that FFmpeg refuses to read, such as one of gigabytes.
    """
    import av

    found = 0
    with (
        open_video(
            video.path, threads=1, limits=limits, demuxer_options={"ignore_editlist": "1"}
        ) as raw,
        suppress(av.error.FFmpegError),
    ):
        for packet in raw.packets():
            found += not packet.is_corrupt
    return found


def _check_duration(video: OpenVideo, packets: Packets, limits: Limits) -> None:
    """Some writers state a length, some an end time; a late start passes for either."""
    duration = video.container.duration
    if not duration or video.format not in STATED_DURATION:
        return
    stated_s = duration / AV_TIME_BASE
    base = video.stream.time_base or Fraction(1)
    times = [p + d for p, d in zip(packets.pts, packets.duration, strict=True) if p is not None]
    enough_s = stated_s - max(SLACK_S, SLACK_SHARE * stated_s)
    reached_s = float(max(times, default=0) * base)
    if reached_s < enough_s:
        reached_s = max(reached_s, _any_stream_reaches_s(video, limits))
    if reached_s < enough_s:
        raise _truncated(video, f"it reaches {reached_s:.2f} s of {stated_s:.2f} s")


def _any_stream_reaches_s(video: OpenVideo, limits: Limits) -> float:
    with open_video(video.path, threads=1, limits=limits) as raw:
        return max(
            (
                float((p.pts + (p.duration or 0)) * p.time_base)
                for p in raw.container.demux()
                if p.size and p.pts is not None and p.time_base
            ),
            default=0.0,
        )
