"""H.264 in mp4, from x264: lossy, and plays everywhere."""

from __future__ import annotations

from dataclasses import dataclass

from flowprep.codec.base import GOP
from flowprep.codec.pixels import GRAY, LUMA, YUV420, YUV444, PixelFormat
from flowprep.codec.video import VideoCodec

FIXED = {  # what makes bytes repeat and keyframes regular
    "keyint": str(GOP),
    "min-keyint": str(GOP),
    "scenecut": "0",
    "bframes": "0",
    "open-gop": "0",
    "threads": "1",
    "lookahead-threads": "1",
    "sync-lookahead": "0",
    "rc-lookahead": "0",
    "mbtree": "0",
    "psy": "0",
    "aq-mode": "0",
    "chromaloc": "1",
    "cpu-independent": "1",
}


@dataclass(frozen=True, kw_only=True)
class X264(VideoCodec):
    """`preset` and `crf` as in x264; `tune` holds further x264 parameters, "subme=1:cabac=1"."""

    preset: str
    crf: float
    tune: str = ""
    encoder: str = "libx264"
    decoder: str = "h264"
    packet_filter: str = "filter_units=remove_types=6"  # x264's SEI: its version and thread count

    @property
    def params(self) -> str:
        pixels = "yuv420p, odd sizes yuv444p" if self.kind == "rgb" else "luma, full range"
        own = f"preset={self.preset} crf={self.crf:g} gop={GOP} bframes=0 psy=0 aq-mode=0"
        return " ".join([own, *filter(None, self.tune.split(":"))]) + f" ({pixels})"

    @property
    def options(self) -> dict[str, str]:
        fixed = [f"{name}={value}" for name, value in FIXED.items()]
        return {
            "preset": self.preset,
            "crf": f"{self.crf:g}",
            "x264-params": ":".join([*fixed, *filter(None, self.tune.split(":"))]),
        }

    def pixel_format(self, height: int, width: int) -> PixelFormat:
        if self.kind == "rgb":
            return YUV444 if height % 2 or width % 2 else YUV420
        return GRAY if height % 2 or width % 2 else LUMA
