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

from flowprep.codec.base import Kind, Region
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
    unpack: Callable[[VideoFrame, Region], Array]  # only the region


def _frame(pixel_format: str, height: int, width: int, planes: Sequence[Array | int]) -> VideoFrame:
    """A frame whose planes hold these arrays, or one number everywhere."""
    from av import VideoFrame

    frame = VideoFrame(width, height, pixel_format)
    for view, plane in zip(_planes(frame), planes, strict=True):
        view[...] = plane
    return frame


def _planes(frame: VideoFrame) -> list[Array]:
    """A view of each plane, [rows, items in a row], without its padding."""
    dtype, n_items = STORED_AS.get(frame.format.name, ("u1", 1))
    views = []
    for plane in frame.planes:
        rows = np.frombuffer(memoryview(plane), dtype).reshape(plane.height, -1)
        views.append(rows[:, : plane.width * n_items])
    return views


def _pack_yuv420(rgb: Array) -> VideoFrame:
    import cv2

    height, width = rgb.shape[:2]
    luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)[:height]
    half = cv2.resize(rgb, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    chroma = cv2.split(cv2.transform(half, RGB_TO_YCC[1:]))
    return _frame("yuv420p", height, width, [luma, *chroma])


def _unpack_yuv420(frame: VideoFrame, region: Region) -> Array:
    """Converts the region and what shares its chroma: at most a row and a column on each side."""
    import cv2

    top, left = region.top // 2, region.left // 2  # in chroma
    bottom = (region.top + region.height + 1) // 2
    right = (region.left + region.width + 1) // 2
    height, width = bottom - top, right - left
    luma, *chroma = _planes(frame)
    i420 = np.empty((3 * height, 2 * width), np.uint8)
    i420[: 2 * height] = luma[2 * top : 2 * bottom, 2 * left : 2 * right]
    for half, plane in zip(i420[2 * height :].reshape(2, height, width), chroma, strict=True):
        half[...] = plane[top:bottom, left:right]
    rgb = cv2.cvtColor(i420, cv2.COLOR_YUV2RGB_I420)[region.top % 2 :, region.left % 2 :]
    return rgb[: region.height, : region.width]


def _pack_yuv444(rgb: Array) -> VideoFrame:
    import cv2

    planes = cv2.split(cv2.transform(rgb, RGB_TO_YCC))
    return _frame("yuv444p", rgb.shape[0], rgb.shape[1], planes)


def _unpack_yuv444(frame: VideoFrame, region: Region) -> Array:
    import cv2

    planes = [part_of("rgb", plane, region) for plane in _planes(frame)]
    return cv2.transform(cv2.merge(planes), YCC_TO_RGB)


def _pack_bgr0(rgb: Array) -> VideoFrame:
    import cv2

    height, width = rgb.shape[:2]
    bgra = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGRA)
    return _frame("bgr0", height, width, [bgra.reshape(height, -1)])


def _unpack_bgr0(frame: VideoFrame, region: Region) -> Array:
    import cv2

    bgra = _planes(frame)[0].reshape(frame.height, frame.width, 4)
    return cv2.cvtColor(part_of("rgb", bgra, region), cv2.COLOR_BGRA2RGB)


def _pack_luma(codes: Array) -> VideoFrame:
    return _frame("yuv420p", codes.shape[0], codes.shape[1], [codes, 128, 128])


def _pack_gray(codes: Array) -> VideoFrame:
    return _frame("gray", codes.shape[0], codes.shape[1], [codes])


def _pack_gray16(codes: Array) -> VideoFrame:
    return _frame("gray16le", codes.shape[0], codes.shape[1], [codes])


def _unpack_planes(frame: VideoFrame, region: Region) -> Array:
    """A copy: the decoder still reads its own when it makes the next frames."""
    planes = part_of("flow8", _planes(frame)[0], region)
    codes = planes.astype(planes.dtype.newbyteorder("="), order="C")
    return codes.reshape(-1, region.width)


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
    unpack=_unpack_planes,
)
GRAY = PixelFormat(
    name="gray",
    decoded=frozenset(["gray", "yuvj420p"]),
    color_range=FULL,
    matrix=MATRIX_BT601,
    pack=_pack_gray,
    unpack=_unpack_planes,
)
GRAY16 = PixelFormat(
    name="gray16le",
    decoded=frozenset(["gray16le"]),
    color_range=FULL,
    matrix=MATRIX_BT601,
    pack=_pack_gray16,
    unpack=_unpack_planes,
)


def shape_of(kind: Kind, height: int, width: int) -> tuple[int, ...]:
    """The shape of one array of this kind."""
    return (height, width, 3) if kind == "rgb" else (height, width)


def dtype_of(kind: Kind) -> type[np.uint8] | type[np.uint16]:
    return np.uint16 if kind == "flow16" else np.uint8


def whole(kind: Kind, height: int, width: int) -> Region:
    """All of an array of this height and width; the height is that of both planes of flow."""
    height //= 1 if kind == "rgb" else 2
    return Region(height, width, 0, 0, height, width)


def check_region(kind: Kind, region: Region, height: int, width: int) -> None:
    """Raises ValueError unless `region` is a part of arrays of this height and width."""
    wanted = region.picture_height * (1 if kind == "rgb" else 2), region.picture_width
    if (height, width) != wanted:
        raise ValueError(f"a picture is {(height, width)}, not {wanted}")
    bottom, right = region.top + region.height, region.left + region.width
    if not (
        0 <= region.top < bottom <= region.picture_height
        and 0 <= region.left < right <= region.picture_width
    ):
        raise ValueError(f"{region} is no part of a picture")


def part_of(kind: Kind, array: Array, region: Region) -> Array:
    """A view of the region: of an array [H, W, ...], or of flow [2H, W], and then [2, h, w]."""
    rows = slice(region.top, region.top + region.height)
    columns = slice(region.left, region.left + region.width)
    if kind == "rgb":
        return array[rows, columns]
    planes = array.reshape(2, region.picture_height, region.picture_width)
    return planes[:, rows, columns]


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
