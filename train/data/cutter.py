"""One sample in, windows of it out; and what happens where it is damaged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from flowprep.codec.base import Region
from flowprep.errors import FlowprepError
from flowprep.records import F32, I64, U8
from train.data.reader import Reader, ShardReader, Span
from train.data.synthetic import SyntheticReader
from train.data.table import Table
from train.data.windows import (
    Crop,
    WindowConfig,
    cut_flow,
    cut_rgb,
    flows_at,
    region_of,
)

Picture = TypeVar("Picture")


class Slots(NamedTuple):
    """Where the windows of one sample go, one for each crop; None where it is not asked for."""

    rgb_CTHW3: U8 | None  # uint8
    flow_C2THW: F32 | None  # float32, in units of FLOW_CLIP_PX


class Cutter:
    """Reads and cuts. Raises FlowprepError at once where a crop does not fit a sample."""

    def __init__(self, table: Table, config: WindowConfig, skip_bad: bool) -> None:
        check_crop_fits(table, config)
        self._table, self._config, self._skip_bad = table, config, skip_bad
        self._reader: Reader = SyntheticReader(table) if table.synthetic else ShardReader(table)
        self.damaged_N = torch.zeros(len(table), dtype=torch.uint8).share_memory_()

    def cut(self, row: int, frames_T: I64, crops: Sequence[Crop], slots: Slots) -> bool:
        """Fill `slots` with the crops of these frames of sample `row`, and of their flows.

        False where the sample is damaged and to be skipped: it is marked in `damaged_N`, which the
        workers share. Raises FlowprepError naming shard and sample where it is damaged otherwise,
        and always where the system does not let it be read.
        """
        try:
            self._cut(row, frames_T, crops, slots)
        except ValueError as error:
            if not self._skip_bad:
                raise self._error(row, error, "--skip-bad leaves such samples out") from error
            self.damaged_N[row] = 1
            return False
        except OSError as error:
            raise self._error(row, error, "see that the shards are where they were") from error
        return True

    def _cut(self, row: int, frames_T: I64, crops: Sequence[Crop], slots: Slots) -> None:
        flows_T = flows_at(frames_T, int(self._table.frames_N[row]))
        height, width = int(self._table.height_N[row]), int(self._table.width_N[row])
        region = region_of(self._config, crops, height, width)
        read = self._reader.read(
            row,
            None if slots.rgb_CTHW3 is None else _span(frames_T, region),
            None if slots.flow_C2THW is None else _span(flows_T, region),
        )
        crops = [crop.within(read.region) for crop in crops]
        if slots.rgb_CTHW3 is not None and read.rgb_HW3 is not None:
            for frame, t in _placed(read.rgb_HW3, frames_T):
                for crop, out_THW3 in zip(crops, slots.rgb_CTHW3, strict=True):
                    cut_rgb(self._config, frame, crop, out_THW3[t])
        if slots.flow_C2THW is not None and read.codes_HW is not None:
            coding = read.zero_code, read.px_per_code
            for codes, t in _placed(read.codes_HW, flows_T):
                for crop, out_2THW in zip(crops, slots.flow_C2THW, strict=True):
                    cut_flow(self._config, codes, *coding, crop, out_2THW[:, t])

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


def _span(places_T: I64, region: Region | None) -> Span:
    return Span(int(places_T.min()), int(places_T.max()) + 1, region)


def _placed(pictures: Iterable[Picture], places_T: I64) -> Iterator[tuple[Picture, int]]:
    """Each picture with every t at which `places_T` has it; the first has the lowest place."""
    at = defaultdict[int, list[int]](list)
    for t, place in enumerate(places_T.tolist()):
        at[place].append(t)
    for place, picture in enumerate(pictures, min(at)):
        for t in at[place]:
            yield picture, t
