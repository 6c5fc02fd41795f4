"""The file systems of fsspec, and what they tell of an object."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import lru_cache
from typing import Any, NamedTuple

from flowprep.errors import FlowprepError

S3_OPTIONS: dict[str, Any] = {
    "config_kwargs": {
        "connect_timeout": 10,
        "read_timeout": 30,
        "retries": {"total_max_attempts": 3, "mode": "standard"},
    },
    "max_concurrency": 1,
}
"""A part of an upload is tried thrice before all of it is; one part is held at a time. More than
one would have the library ask for the size of each object that it reads.
"""
OPTIONS = {"s3": S3_OPTIONS, "s3a": S3_OPTIONS}
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub"}


class About(NamedTuple):
    """What a store tells of an object; `etag` is "" where it tells none."""

    size_bytes: int
    mtime_ns: int
    etag: str


@lru_cache
def _made(protocol: str, process: int) -> Any:
    import fsspec
    from fsspec.config import conf

    options = {**OPTIONS.get(protocol, {}), **conf.get(protocol, {}), "use_listings_cache": False}
    made = fsspec.filesystem(protocol, **options)
    if protocol in OPTIONS:
        made.retries = 1  # times those above, times those of `attempt`
    return made


def file_system(url: str, process: int) -> Any:
    """Of a URL. Raises FlowprepError when no library for it is installed."""
    protocol = url.partition("://")[0]
    try:
        return _made(protocol, process)
    except (ImportError, ValueError) as error:
        package = PACKAGES.get(protocol)
        hint = f"pip install {package}" if package else "see the protocols that fsspec knows"
        raise FlowprepError(f"{url}: {error}", hint) from error


def about_of(info: dict[str, Any]) -> About:
    """From what the file system of a store lists; their names for a time and a hash differ."""
    when = next(
        (info[n] for n in ("LastModified", "mtime", "updated", "created") if info.get(n)), 0
    )
    if isinstance(when, str):
        when = datetime.fromisoformat(when.replace("Z", "+00:00"))
    if isinstance(when, datetime):
        when = when.replace(tzinfo=when.tzinfo or timezone.utc).timestamp()
    etag = str(info.get("ETag") or info.get("etag") or "").strip('"')
    whole_s = int(float(when))  # a list may tell more digits than a question about one object
    return About(int(info["size"]), whole_s * 1_000_000_000, etag)
