"""What the stages hand to one another. Axis order and units are stated here, once.

    Frames.rgb        uint8   [T, H, W, 3]   red, green, blue; full range 0..255
    Frames.pts_s      float64 [T]            presentation time in the source file, seconds
    Frames.source_index int64 [T]            0-based frame number in presentation order
    FlowField.uv      float32 [T-1, 2, H, W] channel 0 = dx to the right, 1 = dy downward,
                                             pixels per frame step at the stored size
    gray_THW          uint8   [T, H, W]      BT.601 luma of the resized RGB, full range
    CodedFlow.codes   uint8 or uint16 [T-1, 2H, W]  quantised flow, dx plane above dy plane

Flow i belongs to the pair (frame i, frame i+1).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


def _check(
    name: str, array: np.ndarray, dtype: type[np.generic], shape: tuple[int | None, ...]
) -> None:
    same = len(array.shape) == len(shape) and all(
        want is None or got == want for got, want in zip(array.shape, shape, strict=True)
    )
    if array.dtype != dtype or not same:
        want = "[" + ", ".join("?" if n is None else str(n) for n in shape) + "]"
        raise ValueError(
            f"{name} must be {np.dtype(dtype).name} {want}, got {array.dtype} {list(array.shape)}"
        )


@dataclass(frozen=True)
class Frames:
    """Decoded, resized frames of one clip or of a chunk of one."""

    rgb: U8
    pts_s: F64
    source_index: I64

    def __post_init__(self) -> None:
        _check("rgb", self.rgb, np.uint8, (None, None, None, 3))
        _check("pts_s", self.pts_s, np.float64, (len(self.rgb),))
        _check("source_index", self.source_index, np.int64, (len(self.rgb),))

    def __len__(self) -> int:
        return len(self.rgb)


@dataclass(frozen=True)
class FlowField:
    """Optical flow of T-1 successive pairs."""

    uv: F32

    def __post_init__(self) -> None:
        _check("uv", self.uv, np.float32, (None, 2, None, None))

    def __len__(self) -> int:
        return len(self.uv)

    def is_finite(self) -> bool:
        return bool(np.isfinite(self.uv).all())


@dataclass(frozen=True)
class CodedFlow:
    """Quantised flow of successive pairs, and what is told of each pair's flow before that.

    Pair by pair, so that totals over a clip do not depend on how it was cut.
    """

    codes: Codes
    sum_px: F64  # [T-1] of the lengths of the vectors; not finite when one of them is not
    max_px: F64  # [T-1] the longest vector
    n_beyond: I64  # [T-1] vectors with dx or dy beyond the bound

    def __post_init__(self) -> None:
        dtype = np.uint16 if self.codes.dtype == np.uint16 else np.uint8
        _check("codes", self.codes, dtype, (None, None, None))
        _check("sum_px", self.sum_px, np.float64, (len(self.codes),))
        _check("max_px", self.max_px, np.float64, (len(self.codes),))
        _check("n_beyond", self.n_beyond, np.int64, (len(self.codes),))

    @classmethod
    def joined(cls, parts: Sequence[CodedFlow]) -> CodedFlow:
        """One after the other; at least one part."""
        arrays = ([getattr(part, f.name) for part in parts] for f in fields(cls))
        return cls(*(np.concatenate(these) for these in arrays))

    def __len__(self) -> int:
        return len(self.codes)

    def is_finite(self) -> bool:
        return bool(np.isfinite(self.sum_px).all())


@dataclass(frozen=True, kw_only=True)
class Video:
    """One probed source file. `pts` lists every frame, so that clips are exact before decoding."""

    path: str  # relative to the source, "/" between folders
    size_bytes: int
    mtime_ns: int
    label: str = ""  # "" = none
    split: str = "train"
    range_start_s: float | None = None  # seconds from the first frame; None = from the first
    range_end_s: float | None = None  # seconds from the first frame; None = to the last
    reason: str = ""  # why it cannot be used; "" = it can
    message: str = ""
    media: Media | None = None


@dataclass(frozen=True, kw_only=True)
class Media:
    """What probing found in a file.

    `pts` int64 [n_frames] holds the presentation time of each frame in ticks of `time_base`
    seconds, ascending and unique; `end_pts` is the last one plus that frame's duration.
    """

    container: str
    codec: str
    pix_fmt: str
    width: int  # as displayed: after rotation
    height: int
    rotation_deg: int  # clockwise turn to apply, one of 0, 90, 180, 270
    sar: Fraction  # sample aspect ratio, 1 when unknown; after rotation
    transfer: str  # colour transfer tag, "" when untagged
    time_base: Fraction
    pts: I64
    end_pts: int

    @property
    def n_frames(self) -> int:
        return len(self.pts)

    @property
    def pts_s(self) -> F64:
        return self.pts.astype(np.float64) * float(self.time_base)

    @property
    def end_s(self) -> float:
        return float(self.end_pts * self.time_base)

    @property
    def duration_s(self) -> float:
        return float((self.end_pts - int(self.pts[0])) * self.time_base) if len(self.pts) else 0.0


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Some frames of a video that become one sample. `source_index` int64 [T] ascending."""

    key: str
    path: str
    number: int
    label: str
    split: str
    source_index: I64
    reason: str = ""  # set when it is known beforehand that it cannot be made
    message: str = ""

    @property
    def n_frames(self) -> int:
        return len(self.source_index)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A planned clip that did not become a sample."""

    key: str
    path: str
    stage: str  # probe, decode, flow, encode; process when its process died
    reason: str  # one of errors.REASONS
    message: str
    retriable: bool


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something `verify` found wrong. `shard` and `key` are "" where none can be named."""

    code: str
    file: str
    message: str
    shard: str = ""
    key: str = ""
    detail: dict[str, Any] = field(default_factory=dict)


KEY = re.compile(r"[a-z0-9_-]{1,90}")
SPLIT = re.compile(r"[a-z0-9_]{1,32}")
SHARD = re.compile(r"[a-z0-9_]{1,32}-[0-9]{6,}")


def check_names(*, shard: str, key: str, split: str) -> None:
    """Raise ValueError for a name that is none of ours: files are called by it, and a stranger's
    dataset could lead out of its folder.
    """
    for kind, name, pattern in (
        ("shard", shard, SHARD),
        ("sample", key, KEY),
        ("split", split, SPLIT),
    ):
        if not pattern.fullmatch(name):
            raise ValueError(f"no {kind} is called {name!r}")


def printable(text: str) -> str:
    """What strangers' names must not do to a terminal, or to UTF-8, as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
