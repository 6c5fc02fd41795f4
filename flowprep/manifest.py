"""The manifest: every video found, probed once, cached as parquet."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flowprep.records import Media, Video
from flowprep.storage import Place, join, stamp

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("size_bytes", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("label", pa.string()),
        ("split", pa.string()),
        ("range_start_s", pa.float64()),
        ("range_end_s", pa.float64()),
        ("reason", pa.string()),
        ("message", pa.string()),
        ("container", pa.string()),
        ("codec", pa.string()),
        ("pix_fmt", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("rotation_deg", pa.int32()),
        ("sar", pa.string()),
        ("transfer", pa.string()),
        ("time_base", pa.string()),
        ("end_pts", pa.int64()),
        ("pts", pa.list_(pa.int64())),
    ]
)
SAVE_EVERY_S = 30.0

Probe = Callable[[list[Video]], Iterable[Video]]
"""Probes videos, in any order: fills `media`, or `reason` and `message`."""


def to_bytes(videos: Iterable[Video]) -> bytes:
    """Parquet bytes; the same videos give the same bytes."""
    table = pa.Table.from_pylist([_row(v) for v in videos], schema=SCHEMA)
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        use_dictionary=["label", "split", "container", "codec", "pix_fmt", "sar", "transfer"],
        column_encoding={"pts.list.element": "DELTA_BINARY_PACKED"},
    )
    return sink.getvalue()


def load(path: Place) -> list[Video]:
    """The videos in a manifest file, [] when there is none."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        return [_video(row) for row in pq.read_table(file, schema=SCHEMA).to_pylist()]


def refresh(
    videos: list[Video],
    cached: list[Video],
    probe: Probe,
    save: Callable[[list[Video]], None],
    again: bool = False,
) -> list[Video]:
    """`videos` with what probing says of each, in the same order.

    What `cached` knows of a file of the same size and time is taken over (with `again`, only what
    could be used). `save` gets what is known so far, now and then and at the end.
    """
    known = {_file(v): v for v in cached if v.media is not None or (v.reason and not again)}
    unknown = {_file(v): v for v in videos if not v.reason and _file(v) not in known}
    saved, wait_s = time.monotonic(), SAVE_EVERY_S
    for video in probe(list(unknown.values())):
        known[_file(video)] = video
        if time.monotonic() - saved > wait_s:
            started = time.monotonic()
            save(list(_merged(videos, known)))
            saved = time.monotonic()
            wait_s = max(SAVE_EVERY_S, 20 * (saved - started))
    result = list(_merged(videos, known))
    save(result)
    return result


def current(video: Video, root: Place, probe: Callable[[Video], Video]) -> Video:
    """A video of the manifest as its file is now: with a reason when that is another one.

    A file of the same size that was written at another time (a copy) is probed, and is the same
    when all that probing finds is.
    """
    if video.reason:
        return video
    try:
        size_bytes, mtime_ns = stamp(join(root, video.path))
    except OSError as error:
        what = f"no longer in the source: {error.strerror}"
        return replace(video, reason="missing", message=what)
    if size_bytes != video.size_bytes:
        what = f"{size_bytes} bytes, {video.size_bytes} when it was extracted"
        return replace(video, reason="changed", message=what)
    now = replace(video, mtime_ns=mtime_ns)
    if now.mtime_ns == video.mtime_ns:
        return video
    found = probe(now)
    if to_bytes([replace(found, mtime_ns=video.mtime_ns)]) != to_bytes([video]):
        return replace(now, reason="changed", message="its frames are no longer those extracted")
    return now


def _file(video: Video) -> tuple[str, int, int]:
    return video.path, video.size_bytes, video.mtime_ns


def _merged(videos: list[Video], known: dict[tuple[str, int, int], Video]) -> Iterator[Video]:
    for video in videos:
        found = None if video.reason else known.get(_file(video))
        if video.reason:
            yield video
        elif found is not None:
            yield replace(video, media=found.media, reason=found.reason, message=found.message)


def _row(video: Video) -> dict[str, object]:
    row = {n: getattr(video, n) for n in SCHEMA.names if hasattr(video, n)}
    if video.media is None:
        return row
    media = {n: getattr(video.media, n) for n in SCHEMA.names if hasattr(video.media, n)}
    return row | media | {"sar": str(video.media.sar), "time_base": str(video.media.time_base)}


def _video(row: dict) -> Video:
    media = None
    if row["codec"] is not None:
        media = Media(
            **{n: row[n] for n in ("container", "codec", "pix_fmt", "width", "height")},
            **{n: row[n] for n in ("rotation_deg", "transfer", "end_pts")},
            sar=Fraction(row["sar"]),
            time_base=Fraction(row["time_base"]),
            pts=np.array(row["pts"], dtype=np.int64),
        )
    names = SCHEMA.names[: SCHEMA.names.index("container")]
    return Video(**{n: row[n] for n in names}, media=media)
