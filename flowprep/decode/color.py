"""Decoded frames to upright 8-bit RGB, and what a frame says about its picture."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from flowprep.decode.opening import pyav_major
from flowprep.records import U8

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# ITU-T H.273 codes, named as FFmpeg names them.
TRANSFERS = {
    1: "bt709",
    4: "bt470m",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "linear",
    9: "log100",
    10: "log316",
    11: "iec61966-2-4",
    12: "bt1361e",
    13: "iec61966-2-1",
    14: "bt2020-10",
    15: "bt2020-12",
    16: "smpte2084",
    17: "smpte428",
    18: "arib-std-b67",
}
BT709, BT601 = 1, 5
SWS_MATRIX = {1: BT709, 4: 4, 5: BT601, 6: BT601, 7: 7, 9: 9, 10: 9}
"""AVColorSpace to swscale's matrix number. BT.2020 constant luminance is read as non-constant."""
SWS_FLAGS = 0x2 | 0x2000 | 0x40000 | 0x80000
"""Bilinear chroma at full resolution, accurate rounding, the same bytes on every CPU. Up to PyAV 16
the range is only honoured when the two matrices differ; that of RGB output has no effect."""
HD_HEIGHT = 720
LIMITED, FULL = 1, 2  # AVColorRange


def transfer_name(context: VideoCodecContext) -> str:
    """The tagged transfer characteristic, "" when untagged."""
    return TRANSFERS.get(int(context.color_trc), "")


def rotation_deg(frame: VideoFrame, stream: VideoStream) -> int:
    """Clockwise turn that sets the picture upright, rounded to a multiple of 90.

    From the display matrix, else from a `rotate` tag. A mirroring is not undone.
    """
    tag = stream.metadata.get("rotate") or stream.metadata.get("ROTATE") or "0"
    matrix = _display_matrix(frame)
    if matrix is None:
        degrees = float(tag) if tag.lstrip("-").replace(".", "", 1).isdigit() else 0.0
    else:
        a, b, c, d = matrix
        mirrored = a * d - b * c < 0
        degrees = float(np.degrees(np.arctan2(b, -a if mirrored else a)))
    return round(degrees / 90) % 4 * 90


def _display_matrix(frame: VideoFrame) -> tuple[int, int, int, int] | None:
    side_data: Any = frame.side_data
    for data in side_data:
        if data.type.name == "DISPLAYMATRIX":
            m = struct.unpack("=9i", bytes(data)[:36])
            return m[0], m[1], m[3], m[4]
    return None


@dataclass(kw_only=True)
class RgbConverter:
    """Frames of one stream to uint8 [H, W, 3].

    The matrix and range are those the frame is tagged with. Untagged: BT.601 below 720 lines and
    BT.709 from 720 up, limited range (full for the yuvj formats). Alpha is dropped, 10 and more
    bits are rounded to 8, HDR is not tone-mapped. A frame whose size differs from the first one's
    is scaled to it.
    """

    width: int  # before rotation
    height: int
    rotation_deg: int
    _scalers: dict[tuple[int, int], Any] = field(default_factory=dict, init=False)

    def __call__(self, frame: VideoFrame) -> U8:
        rgb = self._to_rgb24(frame).to_ndarray()
        if frame.format.name.startswith("gray") and frame.color_range == LIMITED:
            rgb = _LIMITED_TO_FULL[rgb]
        return np.ascontiguousarray(np.rot90(rgb, -self.rotation_deg // 90))

    def _to_rgb24(self, frame: VideoFrame) -> VideoFrame:
        matrix = SWS_MATRIX.get(int(frame.colorspace)) or (
            BT709 if frame.height >= HD_HEIGHT else BT601
        )
        value_range = FULL if _is_full_range(frame) else LIMITED
        converted: VideoFrame = self._scaler(matrix, value_range).reformat(
            frame,
            width=self.width,
            height=self.height,
            format="rgb24",
            src_colorspace=matrix,
            dst_colorspace=BT709 if matrix == BT601 else BT601,
            interpolation=SWS_FLAGS,
            src_color_range=value_range,
            dst_color_range=FULL,
            **_one_thread(),
        )
        return converted

    def _scaler(self, matrix: int, value_range: int) -> Any:
        """One per setting: up to PyAV 16 a scaler does not go back to BT.601."""
        from av.video.reformatter import VideoReformatter

        return self._scalers.setdefault((matrix, value_range), VideoReformatter())


def _one_thread() -> dict[str, int]:
    """From PyAV 17 on, scaling uses all cores unless told otherwise."""
    return {"threads": 1} if pyav_major() >= 17 else {}


def _is_full_range(frame: VideoFrame) -> bool:
    name = frame.format.name
    return (
        frame.color_range == FULL or frame.format.is_rgb or name.startswith(("yuvj", "gray", "pal"))
    )


def _limited_to_full() -> U8:
    codes = np.arange(256, dtype=np.float64)
    return np.clip(np.rint((codes - 16) * 255 / 219), 0, 255).astype(np.uint8)


_LIMITED_TO_FULL = _limited_to_full()
