"""The manifest: every video found, probed once, cached as parquet.

In memory its columns stay in Arrow and its frame times packed; a Video is made when one is asked
for, so that a million of them fit.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flowprep.collector import collector_off
from flowprep.frametimes import StoredTimes, Times, pack, unpack
from flowprep.records import I64, Media, Video
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
COLUMNS = pa.schema(list(SCHEMA)[:-1])
OF_VIDEO = COLUMNS.names[: COLUMNS.names.index("container")]
OF_MEDIA = COLUMNS.names[len(OF_VIDEO) :]
AT_A_TIME = 1024
"""Rows in a row group, and rows whose Python objects or unpacked frame times are held at a time."""


class Manifest(Sequence[Video]):
    """Videos, each made when it is asked for. `stored` is the file they are as they were read."""

    def __init__(self, columns: pa.Table, times: Times, stored: bytes = b"") -> None:
        self.columns, self.times, self.stored = columns, times, stored

    @classmethod
    @collector_off()
    def of(cls, videos: Iterable[Video]) -> Manifest:
        """The videos, which are gone through once."""
        tables, times, some = [COLUMNS.empty_table()], list[bytes | None](), list[Video]()
        for video in videos:
            some.append(video)
            times.append(pack(video.media.pts) if video.media else None)
            if len(some) == AT_A_TIME:
                tables.append(_table(some))
                some = []
        return cls(pa.concat_tables([*tables, _table(some)]), times)

    @classmethod
    def joined(cls, parts: Sequence[Manifest]) -> Manifest:
        """One after the other; at least one part."""
        times = [packed for part in parts for packed in part.times]
        return cls(pa.concat_tables([part.columns for part in parts]), times)

    def __len__(self) -> int:
        return int(self.columns.num_rows)

    @overload
    def __getitem__(self, place: int) -> Video: ...
    @overload
    def __getitem__(self, place: slice) -> Manifest: ...
    def __getitem__(self, place: int | slice) -> Video | Manifest:
        if isinstance(place, slice):
            start, stop, _ = place.indices(len(self))
            return Manifest(self.columns.slice(start, stop - start), self.times[start:stop])
        place = range(len(self))[place]
        (row,) = self.columns.slice(place, 1).to_pylist()
        return _video(row, self.times[place])

    def __iter__(self) -> Iterator[Video]:
        for part in self.parts():
            yield from map(_video, part.columns.to_pylist(), part.times)

    def parts(self) -> Iterator[Manifest]:
        """All of them, some at a time."""
        for start in range(0, len(self), AT_A_TIME):
            yield self[start : start + AT_A_TIME]

    def take(self, places: Sequence[int]) -> Manifest:
        """The videos at these places."""
        columns = self.columns.take(pa.array(places, pa.int64()))
        return Manifest(columns, [self.times[place] for place in places])

    def column(self, name: str) -> list[Any]:
        """A value for each video; a text that repeats is held once."""
        once: dict[Any, Any] = {}
        return [once.setdefault(value, value) for value in self.columns[name].to_pylist()]

    def alike(self, *names: str) -> tuple[I64, I64]:
        """(first video of each kind, kind of each video): those of a kind have the same values in
        these columns.
        """
        kinds = np.zeros(len(self), np.int64)
        for name in names:
            column = self.columns[name].combine_chunks().dictionary_encode("encode")
            kinds = kinds * len(column.dictionary) + column.indices.to_numpy()
            kinds = np.unique(kinds, return_inverse=True)[1]
        _, firsts, kinds = np.unique(kinds, return_index=True, return_inverse=True)
        return firsts, kinds

    @cached_property
    def sha256(self) -> str:
        """Of the file that it was read from."""
        return hashlib.sha256(self.stored).hexdigest()


def to_bytes(videos: Iterable[Video]) -> bytes:
    """Parquet bytes; the same videos give the same bytes."""
    known = videos if isinstance(videos, Manifest) else Manifest.of(videos)
    if known.stored:
        return known.stored
    sink = io.BytesIO()
    with pq.ParquetWriter(
        sink,
        SCHEMA,
        compression="zstd",
        use_dictionary=["label", "split", "container", "codec", "pix_fmt", "sar", "transfer"],
        column_encoding={"pts.list.element": "DELTA_BINARY_PACKED"},
    ) as writer:
        for part in known.parts() if len(known) else [known]:
            columns = part.columns.combine_chunks()
            writer.write_table(columns.append_column(SCHEMA.field("pts"), _lists(part.times)))
    return sink.getvalue()


def _lists(times: Times) -> pa.ListArray:
    arrays = [None if packed is None else unpack(packed) for packed in times]
    stops = list(accumulate((0 if pts is None else len(pts) for pts in arrays), initial=0))
    offsets = [None if pts is None else start for pts, start in zip(arrays, stops, strict=False)]
    flat = np.concatenate([np.empty(0, np.int64), *(pts for pts in arrays if pts is not None)])
    places = pa.array([*offsets, stops[-1]], pa.int32())
    return pa.ListArray.from_arrays(places, pa.array(flat), type=SCHEMA.field("pts").type)


def load(path: Place, sha256: str = "") -> Manifest:
    """The videos in a manifest file, none when there is none. Raises what damaged parquet raises.

    Where the file has this hash, frame times are read when they are first asked for.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Manifest(COLUMNS.empty_table(), [])
    file = pq.ParquetFile(pa.BufferReader(data))
    if not file.schema_arrow.equals(SCHEMA):
        raise ValueError(f"{path.name} is not in the form flowprep writes")
    found = Manifest(file.read(columns=COLUMNS.names), StoredTimes(file), data)
    if sha256 and found.sha256 == sha256:
        return found
    return Manifest(found.columns, found.times[:], data)


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


def _table(videos: list[Video]) -> pa.Table:
    columns: dict[str, Any] = {name: [getattr(v, name) for v in videos] for name in OF_VIDEO}
    media = [video.media for video in videos]
    for name in OF_MEDIA:
        if not any(media):
            columns[name] = pa.nulls(len(media), COLUMNS.field(name).type)
            continue
        columns[name] = [None if one is None else getattr(one, name) for one in media]
        if name in ("sar", "time_base"):
            columns[name] = [None if value is None else str(value) for value in columns[name]]
    return pa.table(columns, schema=COLUMNS)


_fraction = lru_cache(maxsize=1024)(Fraction)


def _video(row: dict[str, Any], packed: bytes | None) -> Video:
    media = None
    if row["codec"] is not None:
        media = Media(
            **{n: row[n] for n in ("container", "codec", "pix_fmt", "width", "height")},
            **{n: row[n] for n in ("rotation_deg", "transfer", "end_pts")},
            sar=_fraction(row["sar"]),
            time_base=_fraction(row["time_base"]),
            pts=unpack(packed) if packed else np.empty(0, np.int64),
        )
    return Video(**{name: row[name] for name in OF_VIDEO}, media=media)
