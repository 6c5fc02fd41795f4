"""Single images out of files that may come from anywhere: JPEG and PNG, nothing else.

What a file claims is read and checked before OpenCV sees it, and so is whether its end is there:
OpenCV fills up half an image with gray, and says nothing.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from flowprep.errors import ClipError
from flowprep.records import U8

FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0..SOF15
START_OF_SCAN = 0xDA
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
BYTES_PER_PIXEL, BYTES_OF_HEADERS = 8, 1 << 20
"""More than that no image of a size takes, whatever it shows."""


def image_size(data: bytes, path: Path) -> tuple[int, int]:
    """(width, height) that an image claims.

    Raises ClipError `truncated` when its end is missing, `decode-error` when it is no image.
    """
    try:
        size = _png_size(data) if data.startswith(PNG_SIGNATURE) else _jpeg_size(data)
        if not size[0] * size[1]:
            raise ValueError("the image claims no pixels")
        return size
    except (struct.error, IndexError, EOFError) as error:
        raise ClipError("truncated", f"{path}: the image is cut short") from error
    except ValueError as error:
        raise ClipError("decode-error", f"{path}: {error}") from error


def _png_size(data: bytes) -> tuple[int, int]:
    """Every chunk is held against its CRC."""
    at, kind = len(PNG_SIGNATURE), b""
    while kind != b"IEND":
        n_bytes, kind = struct.unpack_from(">I4s", data, at)
        (claimed,) = struct.unpack_from(">I", data, at + 8 + n_bytes)
        if zlib.crc32(data[at + 4 : at + 8 + n_bytes]) != claimed:
            raise ValueError("the PNG is damaged")
        at += 12 + n_bytes
    width, height = struct.unpack_from(">II", data, len(PNG_SIGNATURE) + 8)
    return width, height


def _jpeg_size(data: bytes) -> tuple[int, int]:
    if not data:
        raise EOFError
    if not data.startswith(b"\xff\xd8"):
        raise ValueError("neither a JPEG nor a PNG")
    at, size = 2, (0, 0)
    while data[at + 1] != START_OF_SCAN:
        if data[at] != 0xFF:
            raise ValueError("the JPEG is damaged")
        if data[at + 1] in FRAME_HEADERS:
            height, width = struct.unpack_from(">HH", data, at + 5)
            size = width, height
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    if data.find(b"\xff\xd9", at) < 0:
        raise EOFError
    return size


def read_image(path: Path, size: tuple[int, int], *, gray: bool) -> U8:
    """An image of this (width, height): uint8 [H, W, 3] RGB, or [H, W].

    Raises ClipError `missing`, `unreadable`, `truncated`, `too-large`, or `decode-error` when it is
    of another size or does not decode.
    """
    data = read_bytes(path, size[0] * size[1])
    if (found := image_size(data, path)) != size:
        what = f"{found[0]} x {found[1]} pixels, the first image has {size[0]} x {size[1]}"
        raise ClipError("decode-error", f"{path}: {what}")
    return _decoded(data, path, gray)


def read_bytes(path: Path, n_pixels: int) -> bytes:
    """The bytes of an image of so many pixels at most."""
    most = BYTES_PER_PIXEL * n_pixels + BYTES_OF_HEADERS
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except FileNotFoundError as error:
        raise ClipError("missing", f"{path} is gone") from error
    except OSError as error:
        raise ClipError("unreadable", f"{path}: {error.strerror}") from error
    if len(data) > most:
        raise ClipError("too-large", f"{path} has more than {most:,} bytes")
    return data


def _decoded(data: bytes, path: Path, gray: bool) -> U8:
    import cv2

    flag = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ClipError("decode-error", f"{path} does not decode: {error}") from error
    if image is None:
        raise ClipError("decode-error", f"{path} does not decode")
    return image if gray else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
