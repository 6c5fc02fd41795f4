"""Numbers in, batches out: what torch's DataLoader asks its workers for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from flowprep.errors import FlowprepError
from train.data.batch import Batch
from train.data.cutter import Cutter, Window
from train.data.stream import SamplesOfVideos, Stream
from train.data.table import Table
from train.data.windows import WindowConfig, even_crops, even_starts, random_crop, random_start

MAX_DAMAGED = 20
"""Samples that may be damaged, one after the other, where one window should be."""


class _Windows(Dataset[Batch]):
    """Makes a whole batch of a list of numbers."""

    def __init__(self, table: Table, config: WindowConfig, cutter: Cutter) -> None:
        self._table, self._config, self._cutter = table, config, cutter

    def __getitems__(self, numbers: list[int]) -> Batch | FlowprepError:
        """The error is handed over, not raised: torch would wrap it in a traceback."""
        try:
            made = [(row, window) for n in numbers for row, window in self._windows(n)]
        except FlowprepError as error:
            return error
        return _stacked([w for _, w in made], self._table, np.array([row for row, _ in made], int))

    def _windows(self, number: int) -> Iterator[tuple[int, Window]]:
        """The windows that belong to a number, with the sample each is of."""
        raise NotImplementedError


class TrainWindows(_Windows):
    """A position of the stream is a window."""

    def __init__(self, table: Table, config: WindowConfig, cutter: Cutter, seed: int) -> None:
        super().__init__(table, config, cutter)
        self._samples = SamplesOfVideos(table.video_N, table.frames_N)
        self._stream = Stream(len(self._samples), seed)

    def _windows(self, number: int) -> Iterator[tuple[int, Window]]:
        for attempt in range(MAX_DAMAGED):
            rng = self._stream.rng(number, attempt)
            video = rng.integers(len(self._samples)) if attempt else self._stream.video(number)
            row = self._samples.draw(int(video), rng)
            for window in self._cut(row, rng):
                yield row, window
                return
        raise FlowprepError(
            f"{MAX_DAMAGED} samples in a row are damaged",
            "run flowprep verify on the dataset, and extract again what it names",
        )

    def _cut(self, row: int, rng: np.random.Generator) -> list[Window]:
        table, config = self._table, self._config
        start = random_start(config, int(table.frames_N[row]), rng)
        crop = random_crop(config, int(table.height_N[row]), int(table.width_N[row]), rng)
        return self._cutter.cut(row, start, [crop])


class EvalWindows(_Windows):
    """Number i is window i % n_clips of sample i // n_clips, with all its crops."""

    def __init__(
        self, table: Table, config: WindowConfig, cutter: Cutter, n_clips: int, n_crops: int
    ) -> None:
        super().__init__(table, config, cutter)
        self._n_clips, self._n_crops = n_clips, n_crops

    def _windows(self, number: int) -> Iterator[tuple[int, Window]]:
        table, config = self._table, self._config
        row, clip = divmod(number, self._n_clips)
        start = even_starts(config, int(table.frames_N[row]), self._n_clips)[clip]
        size = int(table.height_N[row]), int(table.width_N[row])
        for window in self._cutter.cut(row, start, even_crops(config, *size, self._n_crops)):
            yield row, window


def _stacked(windows: list[Window], table: Table, rows: np.ndarray) -> Batch:
    """The batch of these windows; in a worker it is made in shared memory."""
    rgb_BTHW3 = _joined([w.rgb_THW3 for w in windows], torch.uint8)
    flow_B2THW = _joined([w.flow_2THW for w in windows], torch.float32)
    return Batch(
        rgb_BTHW3.permute(0, 4, 1, 2, 3) if rgb_BTHW3.ndim == 5 else rgb_BTHW3,
        flow_B2THW,
        torch.from_numpy(table.label_N[rows]),
        torch.from_numpy(table.video_N[rows]),
    )


def _joined(arrays: list[np.ndarray | None], dtype: torch.dtype) -> Tensor:
    """[B, ...], or [B, 0] where there is nothing to join."""
    there = [array for array in arrays if array is not None]
    if not there:
        return torch.empty((len(arrays), 0), dtype=dtype)
    shape = (len(there), *there[0].shape)
    joined = torch.empty(shape, dtype=dtype)
    np.stack(there, out=joined.numpy())
    return joined
