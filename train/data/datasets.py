"""Numbers in, batches out: what torch's DataLoader asks its workers for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from flowprep.errors import FlowprepError
from train.data.batch import Batch
from train.data.cutter import Cutter, Slots
from train.data.stream import SamplesOfVideos, Stream
from train.data.table import Table
from train.data.windows import (
    WindowConfig,
    even_crops,
    even_starts,
    frames_at,
    in_order,
    random_crop,
    random_start,
)

MAX_DAMAGED = 20
"""Samples that may be damaged, one after the other, where one window should be."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What windows are cut from, how, and which halves of them are needed."""

    table: Table
    config: WindowConfig
    cutter: Cutter
    need_rgb: bool
    need_flow: bool


class _Room:
    """The memory of one batch, filled from the front."""

    def __init__(self, source: Source, n: int) -> None:
        frames, side = source.config.frames, source.config.crop
        self._table, self._rows = source.table, list[int]()
        rgb = (frames, side, side, 3) if source.need_rgb else (0,)
        flow = (2, frames, side, side) if source.need_flow else (0,)
        self._rgb = _empty((n, *rgb), torch.uint8)
        self._flow = _empty((n, *flow), torch.float32)

    def next(self, n: int) -> Slots:
        """The next `n` places."""
        here = slice(len(self._rows), len(self._rows) + n)
        rgb = self._rgb[here].numpy() if self._rgb.ndim > 2 else None
        flow = self._flow[here].numpy() if self._flow.ndim > 2 else None
        return Slots(rgb, flow)

    def filled(self, n: int, row: int) -> None:
        """The next `n` places hold windows of sample `row`."""
        self._rows += [row] * n

    def batch(self) -> Batch:
        """What was filled."""
        n, rows = len(self._rows), np.array(self._rows, np.int64)
        rgb = self._rgb[:n]
        return Batch(
            rgb.permute(0, 4, 1, 2, 3) if rgb.ndim > 2 else rgb,
            self._flow[:n],
            torch.from_numpy(self._table.label_N[rows]),
            torch.from_numpy(self._table.video_N[rows]),
        )


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory that costs little: shared in a worker, where the main process gets it uncopied.

    Elsewhere NumPy's, which asks for huge pages.
    """
    if get_worker_info() is None or not math.prod(shape):
        return torch.from_numpy(np.empty(shape, str(dtype).removeprefix("torch.")))
    storage = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)
    return torch.empty(0, dtype=dtype).set_(storage).view(shape)


class _Windows(Dataset[Batch]):
    """Makes a whole batch of a list of numbers."""

    n_crops = 1

    def __init__(self, source: Source) -> None:
        self._source = source

    def __getitems__(self, numbers: list[int]) -> Batch | FlowprepError:
        """The error is handed over, not raised: torch would wrap it in a traceback."""
        room = _Room(self._source, len(numbers) * self.n_crops)
        try:
            for number in numbers:
                self._fill(number, room)
        except FlowprepError as error:
            return error
        return room.batch()

    def _fill(self, number: int, room: _Room) -> None:
        """Add the windows that belong to a number, at most `n_crops`."""
        raise NotImplementedError


class TrainWindows(_Windows):
    """A number is a position of the stream, and gives one window."""

    def __init__(self, source: Source, seed: int) -> None:
        super().__init__(source)
        self._samples = SamplesOfVideos(source.table.video_N, source.table.frames_N)
        self._stream = Stream(len(self._samples), seed)

    def _fill(self, number: int, room: _Room) -> None:
        for attempt in range(MAX_DAMAGED):
            rng = self._stream.rng(number, attempt)
            video = rng.integers(len(self._samples)) if attempt else self._stream.video(number)
            row = self._samples.draw(int(video), rng)
            if self._cut(row, rng, room.next(1)):
                return room.filled(1, row)
        raise FlowprepError(
            f"{MAX_DAMAGED} samples in a row are damaged",
            "run flowprep verify on the dataset, and extract again what it names",
        )

    def _cut(self, row: int, rng: np.random.Generator, slots: Slots) -> bool:
        table, config = self._source.table, self._source.config
        n_frames = int(table.frames_N[row])
        frames_T = frames_at(config, n_frames, random_start(config, n_frames, rng))
        crop = random_crop(config, int(table.height_N[row]), int(table.width_N[row]), rng)
        frames_T = in_order(config, frames_T, rng)
        return self._source.cutter.cut(row, frames_T, [crop], slots)


class EvalWindows(_Windows):
    """Number i is window i % n_clips of sample i // n_clips, with all its crops."""

    def __init__(self, source: Source, n_clips: int, n_crops: int) -> None:
        super().__init__(source)
        self._n_clips, self.n_crops = n_clips, n_crops

    def _fill(self, number: int, room: _Room) -> None:
        table, config = self._source.table, self._source.config
        row, clip = divmod(number, self._n_clips)
        n_frames = int(table.frames_N[row])
        frames_T = frames_at(config, n_frames, even_starts(config, n_frames, self._n_clips)[clip])
        frames_T = in_order(config, frames_T, np.random.default_rng(number))
        size = int(table.height_N[row]), int(table.width_N[row])
        crops = even_crops(config, *size, self.n_crops)
        if self._source.cutter.cut(row, frames_T, crops, room.next(self.n_crops)):
            room.filled(self.n_crops, row)
