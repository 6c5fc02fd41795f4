"""What there is to train on, and what is said where it cannot be used."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq
import pytest

from flowprep.errors import FlowprepError
from flowprep.shard.index import canonical
from train.data.splits import held_out
from train.data.table import Table, load_table


def paths(table: Table) -> set[str]:
    return set(table.videos.take(pa.array(np.unique(table.video_N))).to_pylist())


def edit_index(shards: Path, column: str, values: list[Any]) -> None:
    path = shards / "_flowprep" / "index.parquet"
    index = pq.read_table(path)
    field = index.schema.field(column)
    at = index.schema.get_field_index(column)
    pq.write_table(index.set_column(at, field, pa.array(values, field.type)), path)
    sign(shards)


def sign(shards: Path) -> None:
    """Let dataset.json vouch for the index as it is."""
    path = shards / "_flowprep" / "dataset.json"
    body = json.loads(path.read_bytes())
    index = (path.parent / "index.parquet").read_bytes()
    body["files"]["index.parquet"] = hashlib.sha256(index).hexdigest()
    del body["sha256"]
    path.write_bytes(canonical(body | {"sha256": hashlib.sha256(canonical(body)).hexdigest()}))


@pytest.fixture
def copy(labelled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(labelled, tmp_path / "copy"))


@pytest.fixture
def labels(labelled: Path, tmp_path: Path) -> Path:
    """Two splits by path; the class is the take, not the motion; one video is not in them."""
    lines = ["path,label,split1,split2"]
    for video in sorted(paths(load_table(str(labelled), val_share=0)))[1:]:
        take = int(Path(video).stem)
        lines.append(f"{video},take {take},{'test' if take else 'train'},{'train' if take else ''}")
    lines.append("nowhere/9.mp4,take 9,train,train")
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(lines))
    return path


def test_a_folder_is_read_whole(labelled: Path) -> None:
    table = load_table(str(labelled), val_share=0)
    assert len(table) == 18
    assert table.n_videos == 9
    assert table.classes == ["down", "left", "right"]
    assert table.videos_per_class().tolist() == [3, 3, 3]
    for video, label in zip(table.video_N, table.label_N, strict=True):
        assert table.videos[int(video)].as_py().startswith(table.classes[label] + "/")
    assert set(table.frames_N) == {20}
    assert table.extraction["clip_frames"] == 20
    told = json.loads((labelled / "_flowprep" / "dataset.json").read_text())
    assert table.fingerprint == told["sha256"][:16]
    assert table.notes == []


@pytest.mark.parametrize(
    "pattern",
    [
        "{0}/train-{{000000..000007}}.tar",
        "{0}/*.tar",
        "{0}/train-000000.tar,{0}/train-00000[1-7].tar",
    ],
)
def test_patterns_and_lists_name_the_same(labelled: Path, pattern: str) -> None:
    assert len(list(labelled.glob("*.tar"))) == 8
    whole = load_table(str(labelled))
    assert load_table(pattern.format(labelled)).order() == whole.order()


def test_some_shards_have_some_samples(labelled: Path) -> None:
    parts = [
        load_table(str(tar), val_share=0, classes=["down", "left", "right"])
        for tar in labelled.glob("*.tar")
    ]
    assert sum(len(part) for part in parts) == 18
    assert all(len(part.tars) == 1 for part in parts)


@pytest.mark.parametrize(
    ("shards", "words"),
    [
        ("", "--shards is empty"),
        ("nope://bucket/train.tar", "Protocol not known"),
        ("{0}/*.tax", "matches no file"),
        ("{0}/train-{{000000..000009}}.tar", "2 of 10 shards are unknown.*train-000008.tar"),
        ("{0}/train-{{000000..000002", "Unbalanced braces"),
        ("{0}/none", "neither a folder nor a .tar"),
        ("{0}/train-000000.tar,/tmp/b.tar", "2 folders"),
        ("{0}/_flowprep", "there is no .*index.parquet"),
    ],
)
def test_shards_that_are_not_there_are_named(labelled: Path, shards: str, words: str) -> None:
    with pytest.raises(FlowprepError, match=words) as raised:
        load_table(shards.format(labelled))
    assert raised.value.hint


def test_a_damaged_index_is_named(copy: Path) -> None:
    (copy / "_flowprep" / "index.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(FlowprepError, match=r"index\.parquet does not read"):
        load_table(str(copy))


def test_clips_without_flow_are_refused(copy: Path) -> None:
    edit_index(copy, "n_frames", [20] * 17 + [1])
    with pytest.raises(FlowprepError, match="has fewer than two frames"):
        load_table(str(copy))


def test_a_dataset_without_labels_is_refused(i3d: Path) -> None:
    with pytest.raises(FlowprepError, match="no sample has a label") as raised:
        load_table(str(i3d))
    assert "--labels" in raised.value.hint
    assert load_table(str(i3d), labelled=False, val_share=0).label_N.tolist() == [-1, -1]


def test_samples_without_label_are_left_out_and_told(copy: Path) -> None:
    edit_index(copy, "label", [""] * 2 + ["left"] * 8 + ["right"] * 8)
    table = load_table(str(copy), val_share=0)
    assert len(table) == 16
    assert table.notes == ["2 of 18 samples have no label and are left out"]


def test_one_class_is_refused(copy: Path) -> None:
    edit_index(copy, "label", ["left"] * 18)
    with pytest.raises(FlowprepError, match="all samples have the label 'left'"):
        load_table(str(copy))
    assert load_table(str(copy), classes=["right", "left"]).classes == ["right", "left"]


def test_the_classes_of_a_checkpoint_keep_their_order(labelled: Path) -> None:
    classes = ["up", "right", "left", "down"]
    table = load_table(str(labelled), classes=classes)
    assert table.classes == classes
    assert table.videos_per_class().tolist() == [0, 3, 3, 3]


def test_classes_that_a_checkpoint_lacks_are_named(labelled: Path) -> None:
    with pytest.raises(FlowprepError, match=r"3 classes, 1 of them not among the 2.*: down"):
        load_table(str(labelled), classes=["left", "right"])


def test_val_is_held_out_by_video_and_does_not_leak(labelled: Path) -> None:
    table = load_table(str(labelled))
    train, val, test = (table.only(split) for split in ("train", "val", "test"))
    assert (train.n_videos, val.n_videos, len(test)) == (8, 1, 0)
    assert not paths(train) & paths(val)
    assert len(train) + len(val) == 18
    assert table.notes == ["no split val: 1 of 9 training videos are held out for it"]
    assert np.array_equal(load_table(str(labelled)).split_N, table.split_N)


def test_a_split_of_the_dataset_is_kept(copy: Path) -> None:
    names = pq.read_table(copy / "_flowprep" / "index.parquet")["path"].to_pylist()
    split = {"0": "val", "1": "test", "2": "train"}
    edit_index(copy, "split", [split[Path(name).stem] for name in names])
    table = load_table(str(copy))
    assert [table.only(s).n_videos for s in ("train", "val", "test")] == [3, 3, 3]
    assert {Path(p).stem for p in paths(table.only("val"))} == {"0"}
    assert table.notes == []


def test_a_video_in_two_splits_is_refused(copy: Path) -> None:
    keys = pq.read_table(copy / "_flowprep" / "index.parquet")["key"].to_pylist()
    edit_index(copy, "split", ["val" if key.endswith("0") else "train" for key in keys])
    with pytest.raises(FlowprepError, match="lie in different splits"):
        load_table(str(copy))


def test_every_class_holds_out_a_tenth_if_it_can() -> None:
    classes = np.repeat([0, 1, 2], [5, 40, 100])
    videos = [f"{c}/{i}" for i, c in enumerate(classes)]
    chosen = held_out(videos, classes, 0.1)
    assert Counter(classes[chosen].tolist()) == {0: 1, 1: 4, 2: 10}
    order = np.random.default_rng(0).permutation(len(videos))
    again = held_out([videos[i] for i in order], classes[order], 0.1)
    assert sorted(order[again].tolist()) == chosen.tolist()


def test_small_classes_keep_a_video_for_training() -> None:
    classes = np.array([0, 1, 2, 2, 2, 2])
    for share in (0.1, 0.9):
        chosen = held_out([str(i) for i in range(6)], classes, share)
        assert set(classes[chosen].tolist()) == {2}
    with pytest.raises(FlowprepError, match="single video"):
        held_out(["a", "b"], np.array([0, 1]), 0.1)


def test_labels_come_from_a_table(labelled: Path, labels: Path) -> None:
    first = load_table(str(labelled), labels=str(labels), split=1)
    assert first.classes == ["take 0", "take 1", "take 2"]
    assert len(first) == 16
    assert {Path(p).stem for p in paths(first.only("test"))} == {"1", "2"}
    for video, label in zip(first.video_N, first.label_N, strict=True):
        assert first.classes[label] == f"take {Path(first.videos[int(video)].as_py()).stem}"
    assert first.notes[0] == (
        "labels: 16 samples matched, 2 without a label left out, 1 rows without a sample"
    )


def test_another_split_uses_other_videos(labelled: Path, labels: Path) -> None:
    second = load_table(str(labelled), labels=str(labels), split=2, val_share=0)
    assert {Path(p).stem for p in paths(second)} == {"1", "2"}
    assert set(second.split_N) == {0}


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_tables_by_key_of_every_kind(labelled: Path, tmp_path: Path, suffix: str) -> None:
    """Labels may be numbers, and differ between the clips of a video; the splits stay."""
    keys = load_table(str(labelled), val_share=0).key_N.to_pylist()
    path = tmp_path / f"labels{suffix}"
    table = pa.table({"key": keys, "label": [int(key[-1]) for key in keys]})
    if suffix == ".parquet":
        pq.write_table(table, path)
    elif suffix == ".csv":
        path.write_text("key,label\n" + "\n".join(f"{key},{key[-1]}" for key in keys))
    else:
        path.write_text("\n".join(f'{{"key": "{key}", "label": {key[-1]}}}' for key in keys))
        assert pj.read_json(path).num_rows == 18
    loaded = load_table(str(labelled), labels=str(path), val_share=0)
    assert loaded.classes == ["0", "1"]
    assert loaded.label_N.tolist() == [int(key[-1]) for key in loaded.key_N.to_pylist()]


@pytest.mark.parametrize(
    ("text", "split", "words"),
    [
        ("name,label\na,b\n", 0, "has no column key or path; it has name, label\n"),
        ("path,split\na,train\n", 0, "has no column label; it has path, split\n"),
        ("path,key,label\na,b,c\n", 0, "has both columns"),
        ("path,label\n", 0, "has no row"),
        ("path,label\nleft/0.mp4,a\nleft/0.mp4,b\n", 0, "left/0.mp4 more than once"),
        ("path,label\nleft/0.avi,a\n", 0, "labels no sample: it has path left/0.avi"),
        ("path,label,split\nleft/0.mp4,a,training\n", 0, "split 'training' is not known"),
        ("path,label,split1\nleft/0.mp4,a,train\n", 0, "has no column split\n"),
        ("path,label,split1\nleft/0.mp4,a,train\n", 3, "has no column split3"),
        ('path,label\n"left/0.mp4,a\n', 0, "does not read"),
    ],
)
def test_label_tables_that_cannot_be_used(
    labelled: Path, tmp_path: Path, text: str, split: int, words: str
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(FlowprepError, match=words):
        load_table(str(labelled), labels=str(path), split=split)


def test_missing_and_unknown_label_files(labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(FlowprepError, match="no such file"):
        load_table(str(labelled), labels=str(tmp_path / "none.csv"))
    with pytest.raises(FlowprepError, match="is not usable"):
        load_table(str(labelled), labels=str(tmp_path / "labels.txt"))
    with pytest.raises(FlowprepError, match="--split 2 needs --labels"):
        load_table(str(labelled), split=2)


def test_the_order_is_told_by_a_hash(labelled: Path) -> None:
    table = load_table(str(labelled), val_share=0)
    assert table.order() == load_table(str(labelled), val_share=0).order()
    assert table.order() != table.rows(np.arange(18)[::-1].copy()).order()
    renamed = load_table(str(labelled), val_share=0, classes=["right", "left", "down"])
    assert table.order() != renamed.order()
    assert table.order() != replace(table, label_N=(table.label_N + 1) % 3).order()
