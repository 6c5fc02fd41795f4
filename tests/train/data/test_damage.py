"""Damaged and missing data: named, or left out and counted."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flowprep.errors import FlowprepError
from train.data import datasets
from train.data.loader import eval_loader, train_loader
from train.data.reader import ShardReader, Span
from train.data.table import Table, load_table
from train.data.windows import WindowConfig

SMALL = WindowConfig(frames=4, crop=32)
BROKEN = 3  # row of the table

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


@pytest.fixture
def copy(labelled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(labelled, tmp_path / "copy"))


def damage(table: Table, row: int, member: int) -> None:
    """Flip every bit of a member: 0 flow, 1 json, 2 rgb."""
    offset, size = table.places_N32[row, member]
    with table.tars[table.tar_N[row]].open("r+b") as tar:
        tar.seek(offset)
        data = tar.read(size)
        tar.seek(offset)
        tar.write(bytes(255 - byte for byte in data))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("member", [0, 1, 2])
def test_a_damaged_sample_stops_with_its_name(copy: Path, member: int, workers: int) -> None:
    table = load_table(str(copy), val_share=0)
    damage(table, BROKEN, member)
    key, tar = table.key_N[BROKEN].as_py(), table.tars[table.tar_N[BROKEN]].name
    batches = eval_loader(table, SMALL, batch=2, workers=workers)
    with pytest.raises(FlowprepError) as raised:
        list(batches)
    assert tar in raised.value.message
    assert key in raised.value.message
    assert "Traceback" not in str(raised.value)
    assert "verify" in raised.value.hint
    assert "--skip-bad" in raised.value.hint


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_samples_are_left_out_of_evaluation_and_counted(copy: Path, workers: int) -> None:
    table = load_table(str(copy), val_share=0)
    damage(table, BROKEN, 0)
    batches = eval_loader(table, SMALL, batch=1, workers=workers, skip_bad=True, n_clips=2)
    assert sum(len(batch.label_B) for batch in batches) == 2 * (len(table) - 1)
    assert batches.skipped == [table.key_N[BROKEN].as_py()]


def test_what_is_not_needed_may_be_damaged(copy: Path) -> None:
    table = load_table(str(copy), val_share=0)
    damage(table, BROKEN, 0)
    batches = eval_loader(table, SMALL, batch=4, need_flow=False)
    assert sum(len(batch.label_B) for batch in batches) == len(table)


def test_another_video_takes_the_place_of_a_damaged_one(copy: Path, labelled: Path) -> None:
    whole = load_table(str(labelled), val_share=0)
    table = load_table(str(copy), val_share=0)
    damage(table, BROKEN, 2)
    options = {"batch": 9, "seed": 0, "skip_bad": True}
    for step in range(8):
        one = next(batches := train_loader(table, SMALL, start_step=step, **options))
        again = next(train_loader(table, SMALL, start_step=step, workers=1, **options))
        want = next(train_loader(whole, SMALL, start_step=step, **options))
        for a, b in zip(one, again, strict=True):
            assert (a == b).all()
        same = (one.rgb_B3THW == want.rgb_B3THW).flatten(1).all(1)
        assert same.sum() == 9 - len(batches.skipped)
        if batches.skipped:
            break
    assert batches.skipped == [table.key_N[BROKEN].as_py()]


def test_a_dataset_of_damaged_samples_stops_all_the_same(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "MAX_DAMAGED", 3)
    table = load_table(str(copy), val_share=0)
    for row in range(len(table)):
        damage(table, row, 1)
    with pytest.raises(FlowprepError, match="3 samples in a row are damaged"):
        next(train_loader(table, SMALL, batch=1, seed=0, skip_bad=True))


def test_a_shard_that_is_gone_is_named(copy: Path) -> None:
    table = load_table(str(copy), val_share=0)
    tar = table.tars[-1]
    tar.unlink()
    with pytest.raises(FlowprepError, match=tar.name):
        list(eval_loader(table, SMALL, batch=4, skip_bad=True))
    with pytest.raises(FlowprepError, match=f"1 of {len(table.tars)} shards are gone.*{tar.name}"):
        load_table(str(copy))


def test_a_shard_shorter_than_its_index_is_named(copy: Path) -> None:
    table = load_table(str(copy), val_share=0)
    tar = table.tars[table.tar_N[BROKEN]]
    with tar.open("r+b") as file:
        file.truncate(2048)
    with pytest.raises(FlowprepError, match=f"{tar.name}.*2,048 bytes"):
        list(eval_loader(table, SMALL, batch=4))


def test_a_shard_of_another_dataset_is_seen(copy: Path) -> None:
    """Samples of the same size in another order: the index no longer fits."""
    table = load_table(str(copy), val_share=0)
    swapped = table.places_N32.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    reader = ShardReader(Table(**{**vars(table), "places_N32": swapped}))
    with pytest.raises(ValueError, match="where the index has"):
        reader.read(0, Span(0, 2), None)
    reader.close()


def test_a_crop_larger_than_a_picture_is_refused_at_once(labelled: Path) -> None:
    table = load_table(str(labelled), val_share=0)
    with pytest.raises(FlowprepError, match=r"--crop 65 is larger than sample .* 88x64") as raised:
        eval_loader(table, WindowConfig(frames=4, crop=65), batch=4)
    assert "--resize 65" in raised.value.hint


def test_a_worker_that_dies_is_a_message(labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(self: datasets.EvalWindows, number: int, room: object) -> None:
        import os

        os._exit(9)

    monkeypatch.setattr(datasets.EvalWindows, "_fill", die)
    table = load_table(str(labelled), val_share=0)
    with pytest.raises(FlowprepError, match="worker that decodes videos died") as raised:
        list(eval_loader(table, SMALL, batch=4, workers=1))
    assert "/dev/shm" in raised.value.hint


def taken(reader: ShardReader, row: int) -> np.ndarray:
    rgb_HW3 = reader.read(row, Span(0, 1), None).rgb_HW3
    assert rgb_HW3 is not None
    (frame,) = rgb_HW3
    return frame


def test_readers_hold_few_files_open_and_travel(
    labelled: Path, monkeypatch: pytest.MonkeyPatch, open_files: Callable[[], int]
) -> None:
    monkeypatch.setattr("train.data.reader.MAX_OPEN", 1)
    table = load_table(str(labelled), val_share=0)
    before = open_files()
    reader = ShardReader(table)
    rows = [int(np.flatnonzero(table.tar_N == tar)[0]) for tar in range(len(table.tars))]
    assert len(rows) > 1
    first = [taken(reader, row) for row in rows]
    assert open_files() == before + 1
    other = pickle.loads(pickle.dumps(reader))
    reader.close()
    assert open_files() == before
    np.testing.assert_array_equal(first[:2], [taken(other, row) for row in rows[:2]])
    other.close()
