"""The codec contract, and the registry of codecs by name.

A codec turns all frames of one modality of a clip into one file that an ordinary player or reader
opens. RGB frames are uint8 [T, H, W, 3]; flow codes are uint8 or uint16 [T-1, 2H, W] (dx above dy).
The same frames give the same bytes on the same installed versions and CPU family.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, NamedTuple, Protocol

import numpy as np

from flowprep.errors import FlowprepError
from flowprep.records import F64

Kind = Literal["rgb", "flow8", "flow16"]
"""What a codec stores: RGB frames, 8-bit flow codes, 16-bit flow codes."""


class Region(NamedTuple):
    """What is wanted of every picture, and how large these must be.

    A picture is an RGB frame, or one of the two planes of flow: of [2H, W] codes a region of height
    h and width w leaves [2h, w].
    """

    picture_height: int
    picture_width: int
    top: int
    left: int
    height: int
    width: int


class FrameWriter(Protocol):
    """Takes frames chunk after chunk; the file is complete after `close`."""

    def write(self, frames: np.ndarray, pts_s: F64) -> None:
        """`frames` [n, ...] with their times in seconds since the clip's first frame, rising."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> FrameWriter: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close; on an exception release everything without completing the file."""
        ...


class Codec(Protocol):
    """One way to store frames of one kind."""

    name: str
    kind: Kind
    suffix: str  # of the member and of the file: mp4, mkv, zip
    lossless: bool
    params: str  # "crf=18 gop=16 preset=veryfast": recorded in each sample

    def open_writer(self, path: Path, height: int, width: int, threads: int = 1) -> FrameWriter:
        """Start the file `path`. `height`, `width` are those of the arrays (2H for flow).

        The bytes are the same whatever `threads` is. Writing raises OSError where the system
        refuses, ClipError `encode-error` where the codec does.
        """
        ...

    def frames(
        self,
        data: bytes | BinaryIO,
        start: int = 0,
        stop: int | None = None,
        region: Region | None = None,
    ) -> Iterator[np.ndarray]:
        """Frames start..stop-1, one by one, decoding no more than their group of pictures needs.

        With `region` only that part of each, bit for bit what is there in the whole; ValueError
        where the pictures are not of the size that it tells.

        `data` is what was written, or a seekable file of just that, of which only the container's
        header and these groups are read (of mkv, all before them too). Raises ValueError when the
        bytes do not decode, or hold fewer than `stop` frames.
        """
        ...

    def read(self, data: bytes | BinaryIO, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The same as one array, which may have no frame."""
        ...


def as_file(data: bytes | BinaryIO) -> BinaryIO:
    """What `Codec.read` takes, as a file."""
    return io.BytesIO(data) if isinstance(data, bytes) else data


@dataclass(frozen=True)
class CodecEntry:
    """A registered codec: where it lives, and what a user should know when choosing."""

    kind: Kind
    target: str  # "module:Class"
    args: dict[str, Any]
    summary: str


GOP = 16
"""A keyframe at every 16th frame, and nowhere else."""

MAX_PIXELS = 2 * 8192 * 8192
"""What one stored array may claim when it is read: two planes of the largest video taken."""

_X264, _FFV1, _JPEG = (
    "flowprep.codec.x264:X264",
    "flowprep.codec.ffv1:FFV1",
    "flowprep.codec.jpeg:JpegZip",
)

_QUICK_TO_DECODE = "cabac=0:no-deblock=1"
"""CAVLC and no filter of block edges, which ultrafast has too: half the time to read."""

CODECS: dict[str, CodecEntry] = {
    "x264": CodecEntry(
        "rgb",
        _X264,
        {"preset": "superfast", "crf": 17.5, "tune": f"subme=2:{_QUICK_TO_DECODE}"},
        "H.264 in mp4: compact, quick to read, plays everywhere",
    ),
    "x264-fast": CodecEntry(
        "rgb",
        _X264,
        {"preset": "ultrafast", "crf": 18, "tune": "subme=1"},
        "H.264 in mp4: a fifth more bytes than x264, encoded in three quarters of the time",
    ),
    "ffv1": CodecEntry("rgb", _FFV1, {}, "FFV1 in mkv: lossless"),
    "jpeg": CodecEntry("rgb", _JPEG, {}, "JPEG q95 images in a zip: what most datasets hold"),
    "x264-flow": CodecEntry(
        "flow8",
        _X264,
        {
            "preset": "superfast",
            "crf": 14,
            "tune": f"subme=2:weightp=0:8x8dct=0:{_QUICK_TO_DECODE}",
        },
        "H.264 in mp4, full range: compact, adds a fifth to the error of 8 bits",
    ),
    "x264-flow-fast": CodecEntry(
        "flow8",
        _X264,
        {"preset": "ultrafast", "crf": 16},
        "H.264 in mp4, full range: half the time to encode, a tenth more error",
    ),
    "ffv1-flow": CodecEntry("flow8", _FFV1, {}, "FFV1 in mkv: lossless"),
    "jpeg-flow": CodecEntry("flow8", _JPEG, {}, "JPEG q95 images in a zip"),
    "ffv1-flow16": CodecEntry("flow16", _FFV1, {}, "FFV1 in mkv: lossless, 1/32 px"),
}

DEFAULT_RGB, DEFAULT_FLOW, DEFAULT_FLOW16 = "x264", "x264-flow", "ffv1-flow16"
FAST_RGB, FAST_FLOW = "x264-fast", "x264-flow-fast"


def get_codec(name: str, kinds: Iterable[Kind]) -> Codec:
    """The codec called `name`. Raises FlowprepError unless it stores one of `kinds`."""
    entry = CODECS.get(name)
    fitting = sorted(n for n, e in CODECS.items() if e.kind in set(kinds))
    if entry is None or name not in fitting:
        raise FlowprepError(f"unknown codec {name!r}", f"allowed here: {', '.join(fitting)}")
    module, _, attribute = entry.target.partition(":")
    codec: Codec = getattr(import_module(module), attribute)(
        name=name, kind=entry.kind, **entry.args
    )
    return codec
