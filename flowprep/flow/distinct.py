"""Flow of clips, whole or in chunks, where only pairs of different frames are computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np

from flowprep.flow.base import Engine, GivesCodes
from flowprep.quantize import Quantizer
from flowprep.records import F32, U8, CodedFlow, FlowField

Flow = TypeVar("Flow", F32, CodedFlow)


def stream(engine: Engine, chunks: Iterable[U8]) -> Iterator[F32]:
    """Flow of a clip that comes in chunks uint8 [n, H, W]; yields one float32 array per chunk.

    The last frame of a chunk is carried over, so T frames give T-1 flows in all; the first chunk
    of n frames gives n-1, every later one n. Pairs of identical frames are 0, not computed.
    """
    last: U8 | None = None
    for chunk in chunks:
        gray = chunk if last is None else np.concatenate([last[None], chunk])
        last = gray[-1]
        yield compute_distinct(engine, gray)


def compute_distinct(engine: Engine, gray_THW: U8) -> F32:
    """`engine.compute`, but pairs of identical frames give zero flow without being computed."""
    return compute_distinct_batch(engine, [gray_THW])[0]


def compute_distinct_batch(engine: Engine, clips: Sequence[U8]) -> list[F32]:
    """`compute_distinct` of several clips of one frame size, in one call of the engine."""
    return _distinct(clips, engine.compute_batch, _still, np.concatenate)


def compute_distinct_codes_batch(
    engine: GivesCodes, clips: Sequence[U8], quantizer: Quantizer
) -> list[CodedFlow]:
    """`quantizer.coded` of what `compute_distinct_batch` gives, quantised by the engine."""
    return _distinct(
        clips,
        lambda moving: engine.compute_codes_batch(moving, quantizer),
        lambda gray_THW: quantizer.coded(_still(gray_THW)),
        CodedFlow.joined,
    )


def compute_to_store(
    engine: Engine, clips: Sequence[U8], quantizer: Quantizer
) -> Sequence[FlowField | CodedFlow]:
    """The flow of clips of one frame size, as codes where the engine can quantise."""
    if isinstance(engine, GivesCodes):
        return compute_distinct_codes_batch(engine, clips, quantizer)
    return [FlowField(uv) for uv in compute_distinct_batch(engine, clips)]


def _distinct(
    clips: Sequence[U8],
    compute: Callable[[Sequence[U8]], list[Flow]],
    still: Callable[[U8], Flow],
    join: Callable[[Sequence[Flow]], Flow],
) -> list[Flow]:
    """`compute` of all stretches that move, in one call, joined with `still` of all others."""
    cut = [list(_stretches(gray_THW)) for gray_THW in clips]
    moving = [part for parts in cut for part, moves in parts if moves]
    computed = compute(moving)
    wanted, got = [len(part) - 1 for part in moving], [len(flow) for flow in computed]
    if got != wanted:
        raise ValueError(f"the engine gave flow of {got} pairs, asked for {wanted}")
    rest = iter(computed)
    flows = [[next(rest) if moves else still(part) for part, moves in parts] for parts in cut]
    return [parts[0] if len(parts) == 1 else join(parts) for parts in flows]


def _still(gray_THW: U8) -> F32:
    n_frames, height, width = gray_THW.shape
    return np.zeros((n_frames - 1, 2, height, width), np.float32)


def _stretches(gray_THW: U8) -> Iterator[tuple[U8, bool]]:
    """The frames of each run of pairs, at least one run, and whether its pairs differ."""
    moves = ~identical_pairs(gray_THW)
    edges = [0, *(np.flatnonzero(np.diff(moves)) + 1).tolist(), len(moves)]
    for start, stop in pairwise(edges):
        yield gray_THW[start : stop + 1], bool(moves[start:stop].any())


def identical_pairs(gray_THW: U8) -> np.ndarray:
    """bool [T-1]: frame i equals frame i+1 in every pixel."""
    return np.array([np.array_equal(a, b) for a, b in pairwise(gray_THW)], dtype=bool)
