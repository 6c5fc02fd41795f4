"""Samples by key or by the path of their video, and what is nearest to a name that is unknown."""

from __future__ import annotations

import difflib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowprep.errors import FlowprepError
from flowprep.records import printable
from flowprep.shard.columns import Index

NEAREST, COMPARED = 5, 500
LISTED = 50
"""So many clips of a path are listed."""


def place_of(index: Index, wanted: str) -> int:
    """The row of a sample. Raises FlowprepError when there is none, or when a path has several."""
    keys = index.column("key")
    if (at := pc.index(keys, pa.scalar(wanted)).as_py()) >= 0:
        return int(at)
    paths = index.column("path")
    places = _equal(paths, wanted)
    if not len(places):
        raise FlowprepError(f"no sample {printable(wanted)!r}", _hint(keys, paths, wanted))
    if len(places) > 1:
        raise FlowprepError(
            f"{printable(wanted)} has {len(places)} clips", _clips(index, places.tolist())
        )
    return int(places[0])


def _equal(column: pa.ChunkedArray, wanted: str) -> np.ndarray:
    found = [pc.equal(chunk, wanted) for chunk in column.chunks]
    return np.flatnonzero(np.concatenate([np.asarray(f) for f in found]) if found else [])


def _clips(index: Index, places: list[int]) -> str:
    """The keys and times of the clips of one video."""
    table = index.table(["key", "start_s", "end_s"], places[:LISTED])
    rows = zip(*(table[name].to_pylist() for name in table.column_names), strict=True)
    lines = [f"  {printable(key)}  {start:.2f} to {end:.2f} s" for key, start, end in rows]
    more = [f"  and {len(places) - LISTED} more"] if len(places) > LISTED else []
    return "\n".join(["give the key of one of them:", *lines, *more])


def _hint(keys: pa.ChunkedArray, paths: pa.ChunkedArray, wanted: str) -> str:
    near = [*nearest(keys, wanted), *nearest(paths, wanted)]
    if not near:
        return "give the key of a sample, or the path of its video as the source has it"
    ranked = difflib.get_close_matches(wanted, near, NEAREST, cutoff=0)
    return f"nearest: {', '.join(map(printable, ranked))}"


def nearest(column: pa.ChunkedArray, wanted: str) -> list[str]:
    """Up to NEAREST texts of a column that resemble this one, the best first.

    Most have nothing in common with it: only those that share most groups of three letters are
    compared in full.
    """
    texts = pa.chunked_array([_values(chunk) for chunk in column.chunks], pa.string())
    texts = pc.unique(texts)
    shared = np.zeros(len(texts), np.int32)
    for group in {wanted[i : i + 3] for i in range(max(1, len(wanted) - 2))}:
        shared += np.asarray(pc.match_substring(texts, group)).astype(np.int32)
    best = np.argsort(-shared, kind="stable")[:COMPARED]
    likely = texts.take(pa.array(best[shared[best] > 0])).to_pylist()
    return difflib.get_close_matches(wanted, likely, NEAREST, cutoff=0.3)


def _values(chunk: pa.Array) -> pa.Array:
    """The texts of a chunk; those that repeat are held once as they are."""
    return chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk
