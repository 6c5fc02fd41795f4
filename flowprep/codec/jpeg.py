"""JPEG images 000000.jpg, 000001.jpg, ... in a stored zip, which any archive tool opens."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from flowprep.codec.base import MAX_PIXELS, Kind, Region, as_file
from flowprep.codec.pixels import Array, check_frames, check_region, part_of, shape_of, whole
from flowprep.errors import ClipError
from flowprep.records import F64

FIRST_DOS_DATE = (1980, 1, 1, 0, 0, 0)
UNIX, REGULAR_FILE_0644 = 3, 0o100644 << 16
SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0..SOF15


@dataclass(frozen=True, kw_only=True)
class JpegZip:
    """Every frame by itself: dearest in bytes, and the cheapest single frame."""

    name: str
    kind: Kind
    quality: int = 95
    suffix: str = "zip"
    lossless: bool = False

    @property
    def params(self) -> str:
        return f"quality={self.quality}"

    def open_writer(self, path: Path, height: int, width: int, threads: int = 1) -> JpegWriter:
        return JpegWriter(self, path, height, width)

    def frames(
        self,
        data: bytes | BinaryIO,
        start: int = 0,
        stop: int | None = None,
        region: Region | None = None,
    ) -> Iterator[np.ndarray]:
        size, images = self._window(data, start, stop)
        region = region or whole(self.kind, *size)
        check_region(self.kind, region, *size)
        for image in images:
            yield self.decode(image, region)

    def read(self, data: bytes | BinaryIO, start: int = 0, stop: int | None = None) -> np.ndarray:
        (height, width), images = self._window(data, start, stop)
        frames = np.empty((len(images), *shape_of(self.kind, height, width)), np.uint8)
        for frame, image in zip(frames, images, strict=True):
            frame[...] = self.decode(image, whole(self.kind, height, width))
        return frames

    def _window(
        self, data: bytes | BinaryIO, start: int, stop: int | None
    ) -> tuple[tuple[int, int], list[bytes]]:
        """Height and width, and the images start..stop-1."""
        if start < 0 or (stop is not None and stop < start):
            raise ValueError(f"frames {start} to {stop} are no window")
        first, *images = _images(self.name, as_file(data), start, stop)
        if any(_size(image) != _size(first) for image in images):
            raise ValueError(f"the images of the {self.name} file differ in size")
        return _size(first), images

    def encode(self, array: Array) -> bytes:
        import cv2

        image = cv2.cvtColor(array, cv2.COLOR_RGB2BGR) if self.kind == "rgb" else array
        done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, self.quality])
        if not done:
            raise ClipError("encode-error", f"JPEG refuses {array.shape[1]} x {array.shape[0]}")
        return data.tobytes()

    def decode(self, data: bytes, region: Region) -> Array:
        import cv2

        colour = cv2.IMREAD_COLOR if self.kind == "rgb" else cv2.IMREAD_GRAYSCALE
        try:
            image = cv2.imdecode(
                np.frombuffer(data, np.uint8), colour | cv2.IMREAD_IGNORE_ORIENTATION
            )
        except cv2.error as error:
            raise ValueError(f"an image of the {self.name} file does not decode") from error
        if image is None:
            raise ValueError(f"an image of the {self.name} file does not decode")
        part = part_of(self.kind, image, region)
        if self.kind == "rgb":
            return cv2.cvtColor(part, cv2.COLOR_BGR2RGB)
        return part.reshape(-1, region.width)


class JpegWriter:
    """Writes one archive member per frame."""

    def __init__(self, codec: JpegZip, path: Path, height: int, width: int) -> None:
        self._codec, self._path = codec, path
        self._height, self._width = height, width
        self._n_frames = 0
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)

    def write(self, frames: np.ndarray, pts_s: F64) -> None:
        check_frames(self._codec.kind, frames, self._height, self._width, pts_s)
        for frame in frames:
            self._zip.writestr(_entry(self._n_frames), self._codec.encode(frame))
            self._n_frames += 1

    def close(self) -> None:
        if not self._n_frames:
            raise ClipError("encode-error", f"{self._path.name}: no frame was written")
        self._zip.close()

    def __enter__(self) -> JpegWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
            return
        with suppress(OSError, ValueError):
            self._zip.close()
        self._path.unlink(missing_ok=True)


def _entry(index: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(f"{index:06d}.jpg", FIRST_DOS_DATE)
    entry.create_system, entry.external_attr = UNIX, REGULAR_FILE_0644
    return entry


def _images(name: str, file: BinaryIO, start: int, stop: int | None) -> list[bytes]:
    """The first image, which gives the size, and then the images start..stop-1."""
    try:
        with zipfile.ZipFile(file) as archive:
            n_frames = _n_frames(archive, file.seek(0, io.SEEK_END))
            if n_frames < max(1, start, stop or 0):
                raise ValueError(f"it holds {n_frames} images, not {max(1, start, stop or 0)}")
            window = range(start, n_frames if stop is None else stop)
            return [archive.read(f"{index:06d}.jpg") for index in (0, *window)]
    except (
        *(zipfile.BadZipFile, EOFError, KeyError, OSError, OverflowError),
        *(RuntimeError, ValueError, struct.error),
    ) as error:
        raise ValueError(f"the {name} file does not read: {error}") from error


def _n_frames(archive: zipfile.ZipFile, n_bytes: int) -> int:
    """How many images an archive holds that could be ours."""
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("an image is compressed a second time")
    if sum(entry.file_size for entry in entries) > n_bytes:
        raise ValueError("its images overlap")
    return len(entries)


def _size(jpeg: bytes) -> tuple[int, int]:
    """Height and width that a JPEG claims, found without decoding it."""
    at = 2
    while at + 9 <= len(jpeg) and jpeg[at] == 0xFF:
        if jpeg[at + 1] in SIZE_MARKERS:
            height, width = struct.unpack_from(">HH", jpeg, at + 5)
            if 0 < height * width <= MAX_PIXELS:
                return height, width
            raise ValueError(f"an image claims {width} x {height} pixels")
        at += 2 + struct.unpack_from(">H", jpeg, at + 2)[0]
    raise ValueError("an image is no JPEG")
