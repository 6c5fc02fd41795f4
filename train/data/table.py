"""What there is to train on: the samples of a dataset, in columns."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowprep.config import load_toml
from flowprep.errors import FlowprepError
from flowprep.records import I64
from flowprep.shard.layout import Layout
from flowprep.storage import Place
from train.data.labels import join_labels
from train.data.shards import PLACES, find_tars, read_index, vouched
from train.data.splits import SPLITS, TRAIN, VAL, check_splits, held_out


@dataclass(frozen=True, kw_only=True)
class Table:
    """Samples in columns: place i of whatever ends in `_N` is sample i.

    Samples of one video share a number in `video_N`, which stays when samples are left out.
    """

    tars: list[Place]
    videos: Any  # pyarrow strings: path of each video in the source
    classes: list[str]
    key_N: Any  # pyarrow strings
    tar_N: I64
    video_N: I64
    label_N: I64  # class; -1 = none
    split_N: I64  # place in SPLITS
    frames_N: I64  # frames of the sample
    height_N: I64  # as stored, pixels
    width_N: I64
    places_N32: I64  # offset and size in the tar of flow, json and rgb, bytes
    extraction: dict[str, Any]  # the settings that the dataset was made with
    fingerprint: str  # of the dataset: 16 digits of the hash that vouches for all its files
    synthetic: bool = False  # made up, with no tars
    notes: list[str] = field(default_factory=list)  # what a user should be told, a line each

    def __len__(self) -> int:
        return len(self.tar_N)

    @property
    def n_videos(self) -> int:
        """Videos that have a sample here."""
        return len(np.unique(self.video_N))

    def rows(self, places: I64) -> Table:
        """The samples at these places, in this order."""
        columns = {n: v[places] for n, v in vars(self).items() if isinstance(v, np.ndarray)}
        return replace(self, **columns | {"key_N": self.key_N.take(pa.array(places))})

    def only(self, split: str) -> Table:
        """The samples of one split, perhaps none."""
        return self.rows(np.flatnonzero(self.split_N == SPLITS.index(split)))

    def videos_per_class(self) -> I64:
        """int64 [classes]."""
        is_known = self.label_N >= 0
        pairs = np.unique(self.label_N[is_known] * len(self.videos) + self.video_N[is_known])
        return np.bincount(pairs // len(self.videos), minlength=len(self.classes))

    def order(self) -> str:
        """Hash of which samples these are, of their order, and of the classes they have."""
        digest = hashlib.sha256(np.stack([self.video_N, self.label_N]).astype("<i8").tobytes())
        digest.update("\n".join([*self.key_N.to_pylist(), "", *self.classes]).encode())
        return digest.hexdigest()


def load_table(
    shards: str,
    *,
    labels: str = "",
    split: int = 0,
    classes: Sequence[str] | None = None,
    val_share: float = 0.1,
    labelled: bool = True,
) -> Table:
    """The samples of a dataset folder, or of a pattern or list of its tars.

    `labels` is a table that gives each path or key a label and a split, `split` which of its
    splits; `classes` the class names of a checkpoint, whose order is kept. Where no sample is in
    `val`, `val_share` of the training videos go there (0 = none do). With `labelled`, samples
    without a label are left out. Raises FlowprepError when nothing can be trained on this.
    """
    layout, names = find_tars(shards)
    index = read_index(layout, names)
    fingerprint = vouched(layout)
    notes: list[str] = []
    known = _dataset_classes(layout)
    if labels:
        index, report = join_labels(index, Path(labels), split)
        notes.append(str(report))
        known = sorted(pc.unique(index["label"]).to_pylist())
    elif split:
        raise FlowprepError(f"--split {split} needs --labels", "give the table with the splits")
    index = _in_known_splits(index, notes)
    if labelled:
        index = _labelled(index, notes)
    table = _columns(layout, index, _agreed(known, classes, index), fingerprint, notes)
    check_splits(table.videos, table.video_N, table.split_N)
    return _with_val(table, val_share)


def _dataset_classes(layout: Layout) -> list[str]:
    try:
        return layout.classes.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise FlowprepError(
            f"{layout.classes} is not UTF-8", f"run flowprep verify {layout.out}"
        ) from error


def _in_known_splits(index: Any, notes: list[str]) -> Any:
    is_known = pc.is_in(index["split"], value_set=pa.array(SPLITS))
    return _kept(index, is_known, f"are in none of the splits {', '.join(SPLITS)}", notes)


def _labelled(index: Any, notes: list[str]) -> Any:
    kept = _kept(index, pc.not_equal(index["label"], ""), "have no label", notes)
    if not len(kept):
        raise FlowprepError(
            "no sample has a label",
            "extract from one folder per class, or give --labels table.csv with path and label",
        )
    return kept


def _kept(index: Any, mask: Any, why_not: str, notes: list[str]) -> Any:
    if pc.all(mask).as_py():
        return index
    kept = index.filter(mask)
    n_lost = len(index) - len(kept)
    notes.append(f"{n_lost:,} of {len(index):,} samples {why_not} and are left out")
    return kept


def _agreed(known: list[str], classes: Sequence[str] | None, index: Any) -> list[str]:
    """The class names in order, those of a checkpoint where it is given."""
    present = set(pc.unique(index["label"]).to_pylist()) - {""}
    if classes is None and len(present) == 1:
        raise FlowprepError(
            f"all samples have the label {present.pop()!r}", "give a dataset of two classes or more"
        )
    names = list(known if classes is None else classes)
    if odd := sorted(present - set(names)):
        shown = ", ".join(odd[:5]) + (", ..." if len(odd) > 5 else "")
        raise FlowprepError(
            f"the samples have {len(present)} classes, {len(odd)} of them not among the "
            f"{len(names)} known ones: {shown}",
            "take a dataset of the checkpoint's classes, or start anew with --reset-head"
            if classes is not None
            else "run flowprep verify on the dataset",
        )
    return names


def _columns(
    layout: Layout, index: Any, classes: list[str], fingerprint: str, notes: list[str]
) -> Table:
    settings = load_toml(layout.config).get("settings", {})
    shards, tar_N = _numbered(index["shard"])
    videos, video_N = _numbered(index["path"])
    return Table(
        tars=[layout.tar(name) for name in shards.to_pylist()],
        videos=videos,
        classes=classes,
        key_N=index["key"].combine_chunks(),
        tar_N=tar_N,
        video_N=video_N,
        label_N=_places_in(classes, index["label"]),
        split_N=_places_in(SPLITS, index["split"]),
        frames_N=index["n_frames"].to_numpy(),
        height_N=index["height"].to_numpy(),
        width_N=index["width"].to_numpy(),
        places_N32=np.stack([index[n].to_numpy() for n in PLACES], -1).reshape(-1, 3, 2),
        extraction=settings,
        fingerprint=fingerprint,
        notes=notes,
    )


def _numbered(column: Any) -> tuple[Any, I64]:
    """The distinct values, and the place of each value among them."""
    encoded = column.combine_chunks().dictionary_encode()
    return encoded.dictionary, encoded.indices.to_numpy().astype(np.int64)


def _places_in(names: Sequence[str], column: Any) -> I64:
    """Places in `names`, -1 where a value is not there."""
    places = pc.index_in(column, value_set=pa.array(names, pa.string()))
    return pc.fill_null(places, -1).to_numpy().astype(np.int64)


def _with_val(table: Table, share: float) -> Table:
    """With some training videos in the split val, where it is empty."""
    videos, first = np.unique(table.video_N[table.split_N == TRAIN], return_index=True)
    if (table.split_N == VAL).any() or not len(videos) or not share:
        return table
    class_V = table.label_N[table.split_N == TRAIN][first]
    names = table.videos.take(pa.array(videos)).to_pylist()
    chosen = videos[held_out(names, class_V, share)]
    split_N = np.where(np.isin(table.video_N, chosen), VAL, table.split_N)
    note = f"no split val: {len(chosen):,} of {len(videos):,} training videos are held out for it"
    return replace(table, split_N=split_N, notes=[*table.notes, note])
