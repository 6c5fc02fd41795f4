"""FFV1 in Matroska: lossless, and each slice carries a checksum."""

from __future__ import annotations

from dataclasses import dataclass

from flowprep.codec.base import GOP
from flowprep.codec.pixels import BGR0, GRAY, GRAY16, PixelFormat
from flowprep.codec.video import VideoCodec

PIXEL_FORMATS = {"rgb": BGR0, "flow8": GRAY, "flow16": GRAY16}


@dataclass(frozen=True, kw_only=True)
class FFV1(VideoCodec):
    """`context` 1 is slower and smaller than 0; `slices` bounds what a damaged byte destroys."""

    context: int = 0
    slices: int = 4
    suffix: str = "mkv"
    lossless: bool = True
    encoder: str = "ffv1"
    decoder: str = "ffv1"

    @property
    def params(self) -> str:
        pixels = PIXEL_FORMATS[self.kind].name
        return f"level=3 coder=range context={self.context} slices={self.slices} gop={GOP} ({pixels})"

    @property
    def options(self) -> dict[str, str]:
        return {
            "level": "3",
            "coder": "range_def",
            "context": str(self.context),
            "slices": str(self.slices),
            "slicecrc": "1",
            "g": str(GOP),
            "flags": "+bitexact",
        }

    def pixel_format(self, height: int, width: int) -> PixelFormat:
        return PIXEL_FORMATS[self.kind]
