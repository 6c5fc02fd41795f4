"""Small videos of many codecs and containers, to damage."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from flowprep.synth import Motion, render

WIDTH, HEIGHT, N_FRAMES, RATE = 64, 48, 14, 25


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How one seed is encoded."""

    codec: str
    pix_fmt: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)
    muxer: dict[str, str] = field(default_factory=dict)
    n_frames: int = N_FRAMES
    rate: int = RATE
    step: int = 1  # of the times, in frames; -1: uneven ones
    sizes: tuple[tuple[int, int], ...] = ((WIDTH, HEIGHT),)  # later ones: it changes midway


X264 = {"preset": "ultrafast", "g": "6", "bf": "2"}
KINDS = {
    "h264.ts": Kind(codec="libx264", options=X264),
    "h264.flv": Kind(codec="libx264", options=X264),
    "h264.mkv": Kind(codec="libx264", options=X264),
    "editlist.mov": Kind(codec="libx264", options={**X264, "bf": "3"}),
    "fragments.mp4": Kind(codec="libx264", muxer={"movflags": "frag_keyframe+empty_moov"}),
    "faststart.mp4": Kind(codec="libx264", options=X264, muxer={"movflags": "faststart"}),
    "long.mp4": Kind(codec="libx264", options={**X264, "bf": "0"}, rate=1, n_frames=80),
    "uneven.mkv": Kind(codec="libx264", options=X264, step=-1),
    "uneven.mp4": Kind(codec="mpeg4", step=-1),
    "grows.ts": Kind(codec="mpeg2video", sizes=((WIDTH, HEIGHT), (128, 96), (32, 32))),
    "vp8.webm": Kind(codec="libvpx", options={"deadline": "realtime", "cpu-used": "8"}),
    "vp9.webm": Kind(codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}),
    "vp8.ogg": Kind(codec="libvpx", options={"deadline": "realtime", "cpu-used": "8"}),
    "mjpeg.avi": Kind(codec="mjpeg", pix_fmt="yuvj420p"),
    "mpeg4.avi": Kind(codec="mpeg4", options={"bf": "2"}),
    "raw.avi": Kind(codec="rawvideo"),
    "mpeg2.mpg": Kind(codec="mpeg2video"),
    "mpeg1.mpg": Kind(codec="mpeg1video"),
    "wmv2.wmv": Kind(codec="wmv2"),
    "sorenson.flv": Kind(codec="flv"),
    "mpeg4.3gp": Kind(codec="mpeg4"),
    "hevc.mp4": Kind(
        codec="libx265", options={"preset": "ultrafast", "x265-params": "log-level=0"}
    ),
    "prores.mov": Kind(codec="prores_ks", pix_fmt="yuv422p10le"),
    "ffv1.mkv": Kind(codec="ffv1", options={"level": "3"}),
    "huffyuv.avi": Kind(codec="huffyuv", pix_fmt="yuv422p"),
    "qtrle.mov": Kind(codec="qtrle", pix_fmt="rgb24"),
    "gif.gif": Kind(codec="gif", pix_fmt="rgb8"),
}


def make_seed(name: str, folder: Path) -> Path:
    """Write the seed `name`; the bytes of a second size follow those of the first."""
    kind = KINDS[name]
    path = folder / name
    parts = []
    for size in kind.sizes:
        _encode(path, kind, *size)
        parts.append(path.read_bytes())
    path.write_bytes(b"".join(parts))
    return path


def _encode(path: Path, kind: Kind, width: int, height: int) -> None:
    muxer = {"fflags": "+bitexact", **kind.muxer}  # no random numbers, no time of day
    with av.open(str(path), "w", options=muxer) as container:
        stream = container.add_stream(kind.codec, rate=kind.rate, options=kind.options)
        stream.width, stream.height, stream.pix_fmt = width, height, kind.pix_fmt
        stream.codec_context.thread_count = 1
        for number, rgb in enumerate(render(Motion(dx_px=1.5), kind.n_frames, height, width)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24")
            frame = frame.reformat(format=kind.pix_fmt)
            frame.pts = number if kind.step > 0 else number + number // 5 * 7
            frame.time_base = Fraction(1, kind.rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
