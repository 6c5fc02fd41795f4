"""What is sent to a store, and that it has come: by the store's hash, or by reading it back."""

from __future__ import annotations

import errno
import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

from flowprep.storage.systems import about_of

T = TypeVar("T")
PART_BYTES = 50 << 20
"""s3fs uploads objects of two such parts and more in parts; their ETag is made of the parts'
hashes."""
BLOCK_BYTES = 4 << 20


def put(fs: Any, key: str, data: bytes) -> None:
    """Put an object in one step. Raises OSError where the store has something else then."""
    told = fs.pipe_file(key, data)
    etag, expected = told.get("ETag", "") if isinstance(told, dict) else "", _md5(data)
    if etag.strip('"') != expected:  # no hash of the bytes, or not of these
        _confirm(fs, key, len(data), expected, io.BytesIO(data))


def put_file(fs: Any, key: str, path: Path, alive: Callable[[], None]) -> None:
    """Put a file. Raises OSError where the store has something else then."""
    size_bytes = path.stat().st_size
    if size_bytes < 2 * PART_BYTES:
        put(fs, key, path.read_bytes())
        return
    try:
        fs.put_file(str(path), key, callback=_callback(alive), chunksize=PART_BYTES)
    except FileNotFoundError as error:
        if not _is_forgotten(error):
            raise
    try:
        with path.open("rb") as sent:
            _confirm(fs, key, size_bytes, etag_of(path), sent, alive)
    except FileNotFoundError:
        raise OSError(errno.EIO, "the upload came to no end") from None


def _is_forgotten(error: FileNotFoundError) -> bool:
    """Of an upload whose end was not heard of: asked again, the store does not know it any more.
    What was sent may be there.
    """
    told: dict[str, Any] = getattr(error.__cause__, "response", {})
    return bool(told.get("Error", {}).get("Code") == "NoSuchUpload")


def _callback(alive: Callable[[], None]) -> Any:
    from fsspec.callbacks import Callback

    class Alive(Callback):
        def relative_update(self, inc: int = 1) -> None:
            alive()

    return Alive()


def _confirm(
    fs: Any,
    key: str,
    size_bytes: int,
    etag: str,
    sent: IO[bytes],
    alive: Callable[[], None] = lambda: None,
) -> None:
    about = about_of(fs.info(key))
    if about.size_bytes != size_bytes:
        raise OSError(errno.EIO, f"{about.size_bytes} bytes are there of {size_bytes} sent")
    if about.etag == etag:
        return
    for start in range(0, size_bytes, BLOCK_BYTES):
        block = sent.read(BLOCK_BYTES)
        if bytes(fs.cat_file(key, start=start, end=start + len(block))) != block:
            raise OSError(errno.EIO, "what is there is not what was sent")
        alive()


def etag_of(path: Path) -> str:
    """What S3 tells of a file that was put in one piece, or in parts of PART_BYTES."""
    with path.open("rb") as file:
        if path.stat().st_size < 2 * PART_BYTES:
            return _md5(file.read())
        parts = [hashlib.md5(part, usedforsecurity=False).digest() for part in _parts(file)]
    return f"{_md5(b''.join(parts))}-{len(parts)}"


def _parts(file: IO[bytes]) -> Iterator[bytes]:
    return iter(lambda: file.read(PART_BYTES), b"")


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def drop_unfinished(fs: Any, key: str) -> None:
    """End the uploads in parts below a key that nobody will complete any more: they are in no list
    of objects, and cost what objects cost. Of stores that have such.
    """
    if not hasattr(fs, "abort_mpu"):
        return
    bucket, _, folder = key.partition("/")
    told = fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=folder and f"{folder}/")
    for upload in told.get("Uploads", []):
        fs.abort_mpu(bucket, upload["Key"], upload["UploadId"])
