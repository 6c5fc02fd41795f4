"""From a table of samples to batches, in worker processes."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from itertools import count
from typing import TypeVar

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from flowprep.errors import FlowprepError
from train.data.batch import Batch
from train.data.cutter import Cutter
from train.data.datasets import EvalWindows, Source, TrainWindows
from train.data.stream import positions, share_of
from train.data.table import Table
from train.data.windows import WindowConfig

T = TypeVar("T")


class Batches(Iterator[Batch]):
    """Batches in order, and the damaged samples met so far.

    Raises what a worker raised: FlowprepError naming shard and sample.
    """

    def __init__(self, loader: DataLoader[Batch], table: Table, damaged_N: Tensor) -> None:
        self._batches: Iterator[Batch | FlowprepError] = iter(loader)
        self._table, self._damaged_N = table, damaged_N

    def __next__(self) -> Batch:
        while not len((batch := self._next()).label_B):
            pass  # all its windows were skipped
        return batch

    def _next(self) -> Batch:
        """Workers end before an error is raised: its traceback would keep them, cycle and all."""
        made = _taken(self._batches)
        if isinstance(made, FlowprepError):
            self.close()
            raise made
        return made

    @property
    def skipped(self) -> list[str]:
        """Keys of the damaged samples that were left out, each once, in the order of the table."""
        rows = np.flatnonzero(self._damaged_N.numpy())
        return [self._table.key_N[int(row)].as_py() for row in rows]

    def close(self) -> None:
        """End the workers."""
        self._batches = iter(())


def _taken(batches: Iterator[Batch | FlowprepError]) -> Batch | FlowprepError:
    """The next one, or an error in the place of torch's when a worker died."""
    try:
        return next(batches)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        why = str(error)
    return FlowprepError(
        f"a worker that decodes videos died: {why}",
        "memory or /dev/shm may be full: give fewer --workers or a smaller --batch",
    )


def train_loader(
    table: Table,
    windows: WindowConfig,
    *,
    batch: int,
    seed: int,
    start_step: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    need_rgb: bool = True,
    need_flow: bool = True,
    skip_bad: bool = False,
    pin: bool = False,
) -> Batches:
    """Batches without end from step `start_step` on: what step k holds depends on `seed` alone.

    `batch` counts the windows of a step over all `world` processes, of which this one gets its
    even share. A video comes once in every epoch, and gives one random window. Where a sample is
    damaged and `skip_bad` is set, another video takes its place, always the same one.
    """
    share_of(batch, world)
    if not len(table):
        raise FlowprepError(
            "there is no video to train on", "see that the dataset has a split train"
        )
    source = _source(table, windows, need_rgb, need_flow, skip_bad)
    steps = (list(positions(step, batch, rank, world)) for step in count(start_step))
    return _batches(TrainWindows(source, seed), steps, source, workers, pin)


def eval_loader(
    table: Table,
    windows: WindowConfig,
    *,
    batch: int,
    n_clips: int = 1,
    n_crops: int = 1,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    need_rgb: bool = True,
    need_flow: bool = True,
    skip_bad: bool = False,
    pin: bool = False,
) -> Batches:
    """Every sample once over all processes: `n_clips` windows in time, `n_crops` crops of each.

    `batch` counts the windows of a batch of this process; the last one may be smaller. Processes
    may get different numbers of batches, and none. A damaged window is left out with `skip_bad`.
    """
    source = _source(table, windows, need_rgb, need_flow, skip_bad)
    rows = range(rank, len(table), world)
    mine = [row * n_clips + clip for row in rows for clip in range(n_clips)]
    at_once = max(1, batch // n_crops)
    groups = [mine[i : i + at_once] for i in range(0, len(mine), at_once)]
    return _batches(EvalWindows(source, n_clips, n_crops), groups, source, workers, pin)


def _source(
    table: Table, config: WindowConfig, need_rgb: bool, need_flow: bool, skip_bad: bool
) -> Source:
    cutter = Cutter(table, config, skip_bad)
    return Source(table=table, config=config, cutter=cutter, need_rgb=need_rgb, need_flow=need_flow)


def _batches(
    dataset: Dataset[Batch], groups: Iterable[list[int]], source: Source, workers: int, pin: bool
) -> Batches:
    loader: DataLoader[Batch] = DataLoader(
        dataset,
        batch_sampler=groups,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin,
        worker_init_fn=_start_worker,
    )
    return Batches(loader, source.table, source.cutter.damaged_N)


def _as_it_is(made: T) -> T:
    return made


def _start_worker(number: int) -> None:
    """One thread; Ctrl-C and SIGTERM, which all processes may get, are for the main one."""
    import cv2

    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
