"""The decoder on PyAV (FFmpeg's libraries)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from flowprep.decode.base import Limits
from flowprep.decode.color import RgbConverter
from flowprep.decode.opening import OpenVideo, open_video
from flowprep.decode.probe import probe
from flowprep.decode.timing import INDEXED_FORMATS, decode_packets, is_regular
from flowprep.errors import ClipError
from flowprep.records import I64, U8, Media

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame

SEEK_FROM_S = 2.0
SEEK_BACK_S = (0.0, 5.0, 30.0)
MAX_EARLY = 16


class _SeekMissed(Exception):
    """No random access point at or before the wanted frame: decode from the start."""


@dataclass(kw_only=True)
class _Progress:
    """What one run over a file has seen, to tell why frames are missing."""

    last_packet_pts: int | None = None

    def watch(self, packets: Iterable[Packet]) -> Iterator[Packet]:
        for packet in packets:
            if packet.pts is not None:
                seen = self.last_packet_pts
                self.last_packet_pts = packet.pts if seen is None else max(seen, packet.pts)
            yield packet


@dataclass(kw_only=True)
class _Job:
    """The frames to take from one file."""

    path: str
    media: Media
    source_index: I64
    progress: _Progress = field(default_factory=_Progress)

    @property
    def first_pts(self) -> int:
        return int(self.media.pts[self.source_index[0]])

    @property
    def is_late(self) -> bool:
        ahead = self.first_pts - int(self.media.pts[0])
        return ahead * self.media.time_base > SEEK_FROM_S

    def missing(self, number: int, *, at_end: bool) -> ClipError:
        """The error for the wanted frame `number` that did not come."""
        pts = int(self.media.pts[self.source_index[number]])
        seen = self.progress.last_packet_pts
        cut = at_end and (seen is None or seen < pts)
        return ClipError(
            "truncated" if cut else "frames-missing",
            f"{self.path}: decoder gave {number} of {len(self.source_index)} frames,"
            f" first missing at {float(pts * self.media.time_base):.3f} s",
        )


class PyAVDecoder:
    """Decodes with one thread unless told otherwise.

    `corrupt_frames` counts the frames of the last run that the decoder itself marked as damaged.
    """

    name = "pyav"

    def __init__(self, *, threads: int = 1, limits: Limits | None = None) -> None:
        import av

        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        self.threads = threads
        self.limits = limits or Limits()
        self.build = f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}"
        self.corrupt_frames = 0

    def probe(self, path: str) -> Media:
        """List the frames of a video, and describe its picture."""
        return probe(path, threads=self.threads, limits=self.limits)

    def frames(self, path: str, media: Media, source_index: I64) -> Iterator[U8]:
        """The frames `source_index` as upright full-size RGB; see RgbConverter for the colours."""
        job = _Job(path=path, media=media, source_index=_checked(source_index, media))
        self.corrupt_frames = 0
        return self._frames(job)

    def _frames(self, job: _Job) -> Iterator[U8]:
        if job.is_late:
            try:
                yield from self._run(job, seek=True)
                return
            except _SeekMissed:
                pass
        yield from self._run(job, seek=False)

    def _run(self, job: _Job, *, seek: bool) -> Iterator[U8]:
        with open_video(job.path, threads=self.threads, limits=self.limits) as video:
            media = job.media
            sideways = media.rotation_deg % 180 == 90
            to_rgb = RgbConverter(
                width=media.height if sideways else media.width,
                height=media.width if sideways else media.height,
                rotation_deg=media.rotation_deg,
            )
            regular = is_regular(video, media.time_base)
            packets = _packets(video, job, seek=seek and regular)
            frames = decode_packets(video, job.progress.watch(packets))
            wanted = media.pts[job.source_index] if regular else job.source_index
            for frame in _take(_marked(frames, regular), wanted, job, seek=seek):
                self.corrupt_frames += bool(frame.is_corrupt)
                yield to_rgb(frame)


def _checked(source_index: I64, media: Media) -> I64:
    index = np.asarray(source_index, np.int64)
    ascending = index.ndim == 1 and len(index) > 0 and bool(np.all(np.diff(index) > 0))
    if not ascending or index[0] < 0 or index[-1] >= media.n_frames:
        raise ValueError(f"source_index must ascend within 0..{media.n_frames - 1}, got {index}")
    return index


def _packets(video: OpenVideo, job: _Job, *, seek: bool) -> Iterator[Packet]:
    """The stream's packets, from the last random access point at or before the first wanted frame.

    That point itself must not be later than the wanted frame: frames shown before the access point
    that follows them in the file cannot be decoded from it.
    """
    if not seek:
        return video.packets()
    if video.format not in INDEXED_FORMATS:
        raise _SeekMissed
    for back_s in SEEK_BACK_S:
        target = job.first_pts - round(back_s / job.media.time_base)
        packets = _seek(video, target)
        first = next(packets, None)
        if first is not None and _is_entry(first, job.first_pts):
            return chain([first], packets)
    raise _SeekMissed


def _is_entry(packet: Packet, first_pts: int) -> bool:
    return packet.is_keyframe and packet.pts is not None and packet.pts <= first_pts


def _seek(video: OpenVideo, pts: int) -> Iterator[Packet]:
    import av

    try:
        video.container.seek(pts, backward=True, stream=video.stream)
    except av.error.FFmpegError as error:
        raise _SeekMissed from error
    return video.packets()


def _marked(frames: Iterator[VideoFrame], regular: bool) -> Iterator[tuple[int, VideoFrame]]:
    """Each frame with what it is known by: its time, or its place in an irregular stream."""
    for place, frame in enumerate(frames):
        if not regular:
            yield place, frame
        elif frame.pts is not None:
            yield frame.pts, frame


def _take(
    marked: Iterator[tuple[int, VideoFrame]], wanted: I64, job: _Job, *, seek: bool
) -> Iterator[VideoFrame]:
    """The frames whose marks are `wanted`, stopping as soon as the last has come.

    Where the times of packets contradict the order of the codec, a frame comes before others that
    are shown earlier: it waits for them.
    """
    early: dict[int, VideoFrame] = {}
    for number, mark in enumerate(wanted.tolist()):
        early = {got: frame for got, frame in early.items() if got >= mark}
        for got, frame in marked if mark not in early else ():
            if got >= mark:
                early[got] = frame
            if got == mark or len(early) > MAX_EARLY:
                break
        if mark not in early:
            if seek and number == 0:
                raise _SeekMissed
            raise job.missing(number, at_end=not early)
        yield early.pop(mark)
