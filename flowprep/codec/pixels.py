"""Arrays <-> the pixel formats that video codecs store.

| stored as | arrays | pixel format | tags |
|---|---|---|---|
| rgb, even sizes | RGB [H, W, 3] | yuv420p | limited range, BT.601 matrix |
| rgb, an odd side | RGB [H, W, 3] | yuv444p: 4:2:0 cannot have an odd side | the same |
| rgb, lossless | RGB [H, W, 3] | bgr0 | full range, RGB |
| flow, even width | codes [2H, W] | yuv420p with chroma 128, for every decoder | full range |
| flow, odd width or lossless | codes [2H, W] | gray | full range |
| int16 flow | codes [2H, W] | gray16le | full range |

Chroma is sited in the middle of its four pixels, and tagged so. The conversions are OpenCV's, which
round; swscale's fast path cuts, and its RGB comes back about one level darker (docs/codecs.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flowprep.codec.base import Kind
from flowprep.records import F64

if TYPE_CHECKING:
    from av import VideoFrame

Array = npt.NDArray[Any]

LIMITED, FULL = 1, 2  # AVCOL_RANGE_MPEG, AVCOL_RANGE_JPEG
MATRIX_RGB, MATRIX_BT601 = 0, 6  # AVCOL_SPC_RGB, AVCOL_SPC_SMPTE170M
PRIMARIES_BT709 = TRANSFER_BT709 = 1  # RGB of unknown origin: what a screen shows unchanged

RGB_TO_YCC = np.array(  # BT.601, limited range; last column is the offset
    [
        [65.481 / 255, 128.553 / 255, 24.966 / 255, 16],
        [-37.797 / 255, -74.203 / 255, 112 / 255, 128],
        [112 / 255, -93.786 / 255, -18.214 / 255, 128],
    ]
)
_INVERSE = np.linalg.inv(RGB_TO_YCC[:, :3])
YCC_TO_RGB = np.hstack([_INVERSE, -_INVERSE @ RGB_TO_YCC[:, 3:]])

STORED_AS = {"bgr0": ("u1", 4), "gray16le": ("<u2", 1)}  # item and items per pixel, else ("u1", 1)


@dataclass(frozen=True, kw_only=True)
class PixelFormat:
    """How one array becomes one frame of a video, and back."""

    name: str  # FFmpeg's
    decoded: frozenset[str]  # what FFmpeg may call it when it comes back
    color_range: int
    matrix: int
    pack: Callable[[Array], VideoFrame]
    unpack: Callable[[VideoFrame], Array]


def _frame(pixel_format: str, height: int, width: int, planes: Sequence[Array | int]) -> VideoFrame:
    """A frame whose planes hold these arrays, or one number everywhere."""
    from av import VideoFrame

    frame = VideoFrame(width, height, pixel_format)
    for index, plane in enumerate(planes):
        _plane(frame, index)[...] = plane
    return frame


def _plane(frame: VideoFrame, index: int = 0) -> Array:
    """A view of one plane, [rows, items in a row], without its padding."""
    plane = frame.planes[index]
    dtype, n_items = STORED_AS.get(frame.format.name, ("u1", 1))
    rows = np.frombuffer(memoryview(plane), dtype).reshape(plane.height, -1)
    return rows[:, : plane.width * n_items]


def _pack_yuv420(rgb: Array) -> VideoFrame:
    import cv2

    height, width = rgb.shape[:2]
    luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)[:height]
    half = cv2.resize(rgb, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    chroma = cv2.split(cv2.transform(half, RGB_TO_YCC[1:]))
    return _frame("yuv420p", height, width, [luma, *chroma])


def _unpack_yuv420(frame: VideoFrame) -> Array:
    import cv2

    return cv2.cvtColor(frame.to_ndarray(), cv2.COLOR_YUV2RGB_I420)


def _pack_yuv444(rgb: Array) -> VideoFrame:
    import cv2

    planes = cv2.split(cv2.transform(rgb, RGB_TO_YCC))
    return _frame("yuv444p", rgb.shape[0], rgb.shape[1], planes)


def _unpack_yuv444(frame: VideoFrame) -> Array:
    import cv2

    return cv2.transform(cv2.merge([_plane(frame, i) for i in range(3)]), YCC_TO_RGB)


def _pack_bgr0(rgb: Array) -> VideoFrame:
    import cv2

    height, width = rgb.shape[:2]
    bgra = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGRA)
    return _frame("bgr0", height, width, [bgra.reshape(height, -1)])


def _unpack_bgr0(frame: VideoFrame) -> Array:
    import cv2

    bgra = _plane(frame).reshape(frame.height, frame.width, 4)
    return cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGB)


def _pack_luma(codes: Array) -> VideoFrame:
    return _frame("yuv420p", codes.shape[0], codes.shape[1], [codes, 128, 128])


def _pack_gray(codes: Array) -> VideoFrame:
    return _frame("gray", codes.shape[0], codes.shape[1], [codes])


def _pack_gray16(codes: Array) -> VideoFrame:
    return _frame("gray16le", codes.shape[0], codes.shape[1], [codes])


def _unpack_plane(frame: VideoFrame) -> Array:
    rows = _plane(frame)
    return rows.astype(rows.dtype.newbyteorder("="))


YUV420 = PixelFormat(
    name="yuv420p",
    decoded=frozenset(["yuv420p"]),
    color_range=LIMITED,
    matrix=MATRIX_BT601,
    pack=_pack_yuv420,
    unpack=_unpack_yuv420,
)
YUV444 = PixelFormat(
    name="yuv444p",
    decoded=frozenset(["yuv444p"]),
    color_range=LIMITED,
    matrix=MATRIX_BT601,
    pack=_pack_yuv444,
    unpack=_unpack_yuv444,
)
BGR0 = PixelFormat(
    name="bgr0",
    decoded=frozenset(["bgr0"]),
    color_range=FULL,
    matrix=MATRIX_RGB,
    pack=_pack_bgr0,
    unpack=_unpack_bgr0,
)
LUMA = PixelFormat(
    name="yuv420p",
    decoded=frozenset(["yuvj420p", "yuv420p"]),
    color_range=FULL,
    matrix=MATRIX_BT601,
    pack=_pack_luma,
    unpack=_unpack_plane,
)
GRAY = PixelFormat(
    name="gray",
    decoded=frozenset(["gray", "yuvj420p"]),
    color_range=FULL,
    matrix=MATRIX_BT601,
    pack=_pack_gray,
    unpack=_unpack_plane,
)
GRAY16 = PixelFormat(
    name="gray16le",
    decoded=frozenset(["gray16le"]),
    color_range=FULL,
    matrix=MATRIX_BT601,
    pack=_pack_gray16,
    unpack=_unpack_plane,
)


def shape_of(kind: Kind, height: int, width: int) -> tuple[int, ...]:
    """The shape of one array of this kind."""
    return (height, width, 3) if kind == "rgb" else (height, width)


def dtype_of(kind: Kind) -> type[np.uint8] | type[np.uint16]:
    return np.uint16 if kind == "flow16" else np.uint8


def check_frames(kind: Kind, frames: np.ndarray, height: int, width: int, pts_s: F64) -> None:
    """Raises ValueError unless `frames` are [n, ...] of this kind and size, with rising times."""
    want = (len(pts_s), *shape_of(kind, height, width))
    if frames.shape != want or frames.dtype != dtype_of(kind):
        raise ValueError(
            f"{kind} frames must be {np.dtype(dtype_of(kind)).name} {list(want)}, "
            f"got {frames.dtype} {list(frames.shape)}"
        )
    if np.any(np.diff(pts_s) <= 0) or np.any(np.asarray(pts_s[:1]) < 0):
        raise ValueError("frame times must start at 0 or later and rise")
