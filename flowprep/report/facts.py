"""What a report tells of a dataset, counted over the columns of its index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from flowprep.records import F64, I64
from flowprep.shard.columns import Index

STILL_PX, MANY_SATURATED = 0.05, 0.01
"""A clip whose mean flow is below, or of whose vectors more lie beyond the bound, is a suspect."""
LISTED = 100
"""So many suspects of a kind are listed, the worst ones."""
SHOWN_CLASSES = 40
"""So many of the most frequent and of the rarest classes are named."""
N_BINS = 24
SHARES = (0.0, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
"""Borders of the bins of saturation; no saturation at all has a bin of its own."""


@dataclass(frozen=True)
class Histogram:
    """`counts[i]` values lie between `edges[i]` and `edges[i + 1]`; the last one has what is beyond
    it as well when `is_open`.
    """

    edges: list[float]
    counts: list[int]
    median: float
    is_open: bool = False


@dataclass(frozen=True, kw_only=True)
class Split:
    """Of one split. Seconds and bytes."""

    name: str
    samples: int
    frames: int
    duration_s: float
    size_bytes: int
    classes: int


@dataclass(frozen=True, kw_only=True)
class Classes:
    """Samples by class: the most frequent ones, then the rarest. `counts` has all, falling."""

    counts: I64
    top: list[tuple[str, int]]
    bottom: list[tuple[str, int]]

    @property
    def n_between(self) -> int:
        return len(self.counts) - len(self.top) - len(self.bottom)


@dataclass(frozen=True)
class Suspects:
    """How many samples look odd, and the places in the index of the worst."""

    count: int
    places: list[int]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Of all samples."""

    samples: int
    frames: int
    flows: int
    identical: int
    duration_s: float
    size_bytes: int
    durations_s: Histogram
    frame_counts: Histogram
    sizes_bytes: Histogram
    flow_px: Histogram
    saturated: Histogram
    sides: list[tuple[str, int]]  # width x height in pixels, the most frequent first
    splits: list[Split] = field(default_factory=list)
    classes: Classes
    still: Suspects
    saturating: Suspects


def count_facts(index: Index, class_names: Sequence[str]) -> Facts:
    """Everything, column after column; memory holds some numbers for each sample."""
    frames, flows = _numbers(index, "n_frames"), _numbers(index, "n_flows")
    identical = _numbers(index, "identical_pairs")
    size_bytes, flow_px = _numbers(index, "sample_size"), _numbers(index, "flow_mean_px")
    saturated = _numbers(index, "flow_saturated_share")
    duration_s = np.maximum(_numbers(index, "end_s") - _numbers(index, "start_s"), 0)
    labels, label_of = _coded(index, "label")
    return Facts(
        samples=index.n_rows,
        frames=int(frames.sum()),
        flows=int(flows.sum()),
        identical=int(identical.sum()),
        duration_s=float(duration_s.sum()),
        size_bytes=int(size_bytes.sum()),
        durations_s=histogram(duration_s),
        frame_counts=histogram(frames),
        sizes_bytes=histogram(size_bytes),
        flow_px=histogram(flow_px),
        saturated=_share_histogram(saturated),
        sides=_sides(_numbers(index, "width"), _numbers(index, "height")),
        splits=_splits(index, label_of, frames, duration_s, size_bytes),
        classes=_classes(labels, label_of, class_names),
        still=_suspects((flow_px < STILL_PX) | (identical >= flows), flow_px),
        saturating=_suspects(saturated > MANY_SATURATED, -saturated),
    )


def _numbers(index: Index, name: str) -> F64:
    """A column as float64; what is no number, or below 0, counts as 0."""
    values = np.asarray(index.column(name), dtype=np.float64)
    return np.maximum(np.nan_to_num(values, posinf=0, neginf=0), 0)


def _coded(index: Index, name: str) -> tuple[pa.Array, I64]:
    """(the different texts of a column, which of them each row has)."""
    column = index.column(name).unify_dictionaries()
    if not len(column):
        return pa.array([], pa.string()), np.empty(0, np.int64)
    codes = np.concatenate([np.asarray(chunk.indices) for chunk in column.chunks])
    return column.chunk(0).dictionary, codes.astype(np.int64)


def histogram(values: F64) -> Histogram:
    """N_BINS bins from 0 to about the highest value, or to what few values exceed."""
    if not len(values):
        return Histogram([0.0, 1.0], [0], 0.0)
    highest, most = float(values.max()), float(np.percentile(values, 99.5))
    top = nice_above(most if highest > 2 * most > 0 else highest)
    counts, edges = np.histogram(np.minimum(values, top), bins=N_BINS, range=(0, top))
    return Histogram(edges.tolist(), counts.tolist(), float(np.median(values)), highest > top)


def nice_above(value: float) -> float:
    """The next of 1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8 times a power of ten, 1 for 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    steps = (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10)
    return float(next(step * power for step in steps if step * power >= value * (1 - 1e-9)))


def _share_histogram(shares: F64) -> Histogram:
    beyond = shares[shares > 0]
    counts, _ = np.histogram(np.minimum(beyond, 1), bins=SHARES)
    median = float(np.median(shares)) if len(shares) else 0.0
    return Histogram(list(SHARES), [int((shares == 0).sum()), *counts.tolist()], median)


def _sides(width: F64, height: F64) -> list[tuple[str, int]]:
    pairs, counts = np.unique(width + 1j * height, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [(f"{pairs[i].real:.0f} x {pairs[i].imag:.0f}", int(counts[i])) for i in order]


def _splits(
    index: Index, label_of: I64, frames: F64, duration_s: F64, size_bytes: F64
) -> list[Split]:
    names, split_of = _coded(index, "split")
    pairs = np.unique(split_of * (label_of.max(initial=0) + 1) + label_of)
    sums = [np.bincount(split_of, each, len(names)) for each in (frames, duration_s, size_bytes)]
    samples = np.bincount(split_of, minlength=len(names))
    classes = np.bincount(pairs // (label_of.max(initial=0) + 1), minlength=len(names))
    return [
        Split(
            name=names[i].as_py(),
            samples=int(samples[i]),
            frames=int(sums[0][i]),
            duration_s=float(sums[1][i]),
            size_bytes=int(sums[2][i]),
            classes=int(classes[i]),
        )
        for i in np.argsort(-samples, kind="stable")
    ]


def _classes(labels: pa.Array, label_of: I64, listed: Sequence[str]) -> Classes:
    """Also the classes of the list that have no sample."""
    known = set(labels.to_pylist())
    if not known - {""}:
        return Classes(counts=np.empty(0, np.int64), top=[], bottom=[])
    found = np.bincount(label_of, minlength=len(labels))
    order = np.argsort(-found, kind="stable")
    without = [name for name in listed if name not in known]
    names = pa.concat_arrays([labels.take(pa.array(order)), pa.array(without, pa.string())])
    counts = np.concatenate([found[order], np.zeros(len(without), np.int64)])
    n_top = len(names) if len(names) <= 2 * SHOWN_CLASSES else SHOWN_CLASSES
    n_bottom = min(SHOWN_CLASSES, len(names) - n_top)
    ranked = [
        list(zip(names[part].to_pylist(), counts[part].tolist(), strict=True))
        for part in (slice(0, n_top), slice(len(names) - n_bottom, None))
    ]
    return Classes(counts=counts, top=ranked[0], bottom=ranked[1])


def _suspects(is_one: np.ndarray, worst_first: F64) -> Suspects:
    places = np.flatnonzero(is_one)
    order = np.argsort(worst_first[places], kind="stable")[:LISTED]
    return Suspects(len(places), places[order].tolist())
