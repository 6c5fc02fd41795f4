"""One sample in, windows out; and what happens where it is damaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from flowprep.errors import FlowprepError
from flowprep.records import F32, I64, U8
from train.data.reader import Reader, ShardReader, Span
from train.data.synthetic import SyntheticReader
from train.data.table import Table
from train.data.windows import Crop, WindowConfig, cut_flow, cut_rgb, flows_at, frames_at


class Window(NamedTuple):
    """What a batch has one of for each place; None where it was not asked for."""

    rgb_THW3: U8 | None
    flow_2THW: F32 | None


class Cutter:
    """Reads and cuts. Raises FlowprepError at once where a crop does not fit a sample."""

    def __init__(
        self, table: Table, config: WindowConfig, need_rgb: bool, need_flow: bool, skip_bad: bool
    ) -> None:
        check_crop_fits(table, config)
        self._table, self._config, self._skip_bad = table, config, skip_bad
        self._need_rgb, self._need_flow = need_rgb, need_flow
        self._reader: Reader = SyntheticReader(table) if table.synthetic else ShardReader(table)
        self.damaged_N = torch.zeros(len(table), dtype=torch.uint8).share_memory_()

    def cut(self, row: int, start: int, crops: Sequence[Crop]) -> list[Window]:
        """A window for each crop, of the frames from `start` on of sample `row`.

        None at all where the sample is damaged and to be skipped: it is marked in `damaged_N`,
        which the workers share. Raises FlowprepError naming shard and sample where it is damaged
        otherwise, and always where the system does not let it be read.
        """
        try:
            return self._cut(row, start, crops)
        except ValueError as error:
            if not self._skip_bad:
                raise self._error(row, error, "--skip-bad leaves such samples out") from error
            self.damaged_N[row] = 1
            return []
        except OSError as error:
            raise self._error(row, error, "see that the shards are where they were") from error

    def _cut(self, row: int, start: int, crops: Sequence[Crop]) -> list[Window]:
        n_frames = int(self._table.frames_N[row])
        frames_T = frames_at(self._config, n_frames, start)
        flows_T = flows_at(frames_T, n_frames)
        rgb_span = _span(frames_T) if self._need_rgb else None
        flow_span = _span(flows_T) if self._need_flow else None
        read = self._reader.read(row, rgb_span, flow_span)
        rgb = flow = None
        windows = []
        for crop in crops:
            if read.rgb_THW3 is not None:
                rgb = cut_rgb(self._config, _picked(read.rgb_THW3, frames_T), crop)
            if read.codes_THW is not None:
                codes = _picked(read.codes_THW, flows_T)
                flow = cut_flow(self._config, codes, read.zero_code, read.px_per_code, crop)
            windows.append(Window(rgb, flow))
        return windows

    def _error(self, row: int, error: Exception, hint: str) -> FlowprepError:
        tar = self._table.tars[int(self._table.tar_N[row])]
        return FlowprepError(
            f"{tar}, sample {self._table.key_N[row]}: {error}",
            f"run flowprep verify {tar.parent} --deep to see all that is damaged; {hint}",
        )


def check_crop_fits(table: Table, config: WindowConfig) -> None:
    """Raise FlowprepError where a picture is smaller than the crop."""
    short_N = np.minimum(table.height_N, table.width_N)
    if config.resize or not len(table) or short_N.min() >= config.crop:
        return
    row = int(short_N.argmin())
    raise FlowprepError(
        f"--crop {config.crop} is larger than sample {table.key_N[row]}, "
        f"which is {table.width_N[row]}x{table.height_N[row]}",
        f"give --crop {short_N.min()} or less, or --resize {config.crop} or more",
    )


def _span(places_T: I64) -> Span:
    return Span(int(places_T.min()), int(places_T.max()) + 1)


def _picked(array: npt.NDArray[Any], places_T: I64) -> npt.NDArray[Any]:
    """What lies at these places; `array` goes from the lowest to the highest of them.

    A view where they are evenly spaced.
    """
    at = places_T - places_T.min()
    step = max(1, (len(array) - 1) // max(1, len(at) - 1))
    return array[::step] if np.array_equal(at, step * np.arange(len(at))) else array[at]
