"""Probe videos in parallel; a file that kills the prober costs only itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

from flowprep.decode.base import get_decoder
from flowprep.errors import ClipError
from flowprep.processes import process_pool
from flowprep.records import Video

BATCH = 16
FEW = 4
"""So few files are probed in this process: starting others would take longer."""


def probe_one(root: Path, video: Video) -> Video:
    """The video with its `media`, or with the reason it cannot be used."""
    try:
        return replace(video, media=get_decoder().probe(str(root / video.path)))
    except ClipError as error:
        return replace(video, reason=error.reason, message=error.below(root).message)


def _probe_batch(root: Path, videos: list[Video]) -> list[Video]:
    return [probe_one(root, video) for video in videos]


def probe_all(root: Path, n_workers: int, videos: list[Video]) -> Iterator[Video]:
    """Every video probed, in the order they finish."""
    if len(videos) <= FEW:
        yield from map(partial(probe_one, root), videos)
        return
    suspects: list[Video] = []
    for batch in _windows(videos, BATCH * n_workers * 64):
        with process_pool(n_workers) as pool:
            tasks = {pool.submit(_probe_batch, root, part): part for part in _windows(batch, BATCH)}
            for future in as_completed(tasks):
                yield from _results(future, tasks[future], suspects)
    for video in suspects:
        yield _probe_alone(root, video)


def _windows(videos: list[Video], size: int) -> Iterator[list[Video]]:
    iterator = iter(videos)
    while part := list(islice(iterator, size)):
        yield part


def _results(
    future: Future[list[Video]], part: list[Video], suspects: list[Video]
) -> Iterable[Video]:
    try:
        return future.result()
    except BrokenProcessPool:
        suspects += part
        return []


def _probe_alone(root: Path, video: Video) -> Video:
    with process_pool(1) as pool:
        try:
            return pool.submit(probe_one, root, video).result()
        except BrokenProcessPool:
            return replace(
                video, reason="decode-error", message="the decoder's process died while probing it"
            )
