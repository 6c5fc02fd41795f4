"""FFV1 in Matroska: lossless, and each slice carries a checksum, which `read` verifies.

FFmpeg's decoder checks them too, but then shows the slice of an earlier frame and reports success.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowprep.codec.base import GOP
from flowprep.codec.pixels import BGR0, GRAY, GRAY16, PixelFormat
from flowprep.codec.video import VideoCodec

if TYPE_CHECKING:
    from av.packet import Packet

PIXEL_FORMATS = {"rgb": BGR0, "flow8": GRAY, "flow16": GRAY16}
FOOTER_BYTES = 8  # of a slice: 3 its length without them, 1 status, 4 CRC
MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


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
        return f"level=3 context={self.context} slices={self.slices} gop={GOP} ({pixels})"

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

    def check_packet(self, packet: Packet) -> None:
        data = bytes(packet)
        end = len(data)
        while end >= FOOTER_BYTES:
            length = int.from_bytes(data[end - 8 : end - 5], "big") + FOOTER_BYTES
            if length > end or _crc(data[end - length : end]):
                raise ValueError(f"the {self.name} video is damaged: a slice fails its checksum")
            end -= length
        if end:
            raise ValueError(f"the {self.name} video is damaged: its slices do not add up")


def _crc(data: bytes) -> int:
    """CRC-32 of polynomial 04C11DB7 from 0, highest bit first; 0 when `data` ends with its own."""
    return zlib.crc32(data.translate(MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
