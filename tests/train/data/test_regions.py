"""Decoding only what the crops need gives the windows that whole pictures give."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from train.data import cutter
from train.data.loader import Batches, eval_loader, train_loader
from train.data.reader import ShardReader, Span
from train.data.table import Table, load_table
from train.data.windows import Crop, WindowConfig, region_of

SMALL = WindowConfig(frames=5, crop=47, hflip=True)  # odd: chroma reaches over the edge


def batches(table: Table) -> Iterator[Batches]:
    yield eval_loader(table, SMALL, batch=6, n_clips=2, n_crops=3)
    yield eval_loader(table, SMALL, batch=6, need_flow=False)
    yield eval_loader(table, SMALL, batch=6, need_rgb=False)
    yield eval_loader(table, replace(SMALL, resize=50), batch=6)
    for step in range(6):
        yield train_loader(table, SMALL, batch=4, seed=step)


@pytest.mark.parametrize("name", ["labelled", "i3d", "int16"])
def test_windows_are_those_of_whole_pictures(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = load_table(str(request.getfixturevalue(name)), labelled=False, val_share=0)
    parts = [next(made) for made in batches(table)]
    monkeypatch.setattr(cutter, "region_of", lambda *_: None)
    wholes = [next(made) for made in batches(table)]
    for part, whole in zip(parts, wholes, strict=True):
        assert torch.equal(part.rgb_B3THW, whole.rgb_B3THW)
        assert torch.equal(part.flow_B2THW, whole.flow_B2THW)


def test_the_region_holds_all_crops_and_no_more() -> None:
    crops = [Crop(3, 20), Crop(10, 5, flip=True)]
    region = region_of(WindowConfig(crop=8), crops, 64, 88)
    assert region == (64, 88, 3, 5, 10 + 8 - 3, 20 + 8 - 5)
    assert [crop.within(region) for crop in crops] == [Crop(0, 15), Crop(7, 0, flip=True)]
    assert [crop.within(None) for crop in crops] == crops


def test_a_resize_needs_the_whole_picture() -> None:
    assert region_of(WindowConfig(crop=8, resize=64), [Crop(0, 0)], 64, 88) is None


def test_an_index_with_other_sizes_is_seen(int16: Path) -> None:
    table = load_table(str(int16), labelled=False, val_share=0)
    reader = ShardReader(table)
    height, width = int(table.height_N[0]), int(table.width_N[0])
    region = region_of(WindowConfig(crop=8), [Crop(0, 0)], height + 2, width)
    for spans in [(Span(0, 2, region), None), (None, Span(0, 2, region))]:
        with pytest.raises(ValueError, match="the index of"):
            reader.read(0, *spans)
    reader.close()
