"""Samples changed by hand, with every hash computed anew: no hash shows it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from flowprep.codec.base import get_codec
from flowprep.shard.index import Mark, dali_idx, dataset_bytes, gather
from flowprep.shard.layout import Layout
from flowprep.shard.reader import iter_samples
from flowprep.shard.schema import SampleRow
from flowprep.shard.writer import ShardWriter
from flowprep.verify.shallow import load_marks


@dataclass
class Forged:
    """A sample as a forger changes it: its members and its row of the index."""

    members: dict[str, bytes]
    row: SampleRow

    @property
    def info(self) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(self.members["json"])
        return values

    def state(self, in_index: bool = False, **values: Any) -> None:
        text = json.dumps(self.info | values, sort_keys=True, ensure_ascii=False)
        self.members["json"] = text.encode()
        if in_index:
            self.row = replace(self.row, **values)


Change = Callable[[Forged, Path], None]


def encode_again(
    sample: Forged, folder: Path, kind: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    name = sample.info[f"{kind}_member"]
    codec = get_codec(sample.info[f"{kind}_codec"], ["rgb", "flow8"])
    frames = np.ascontiguousarray(change(codec.read(sample.members[name])))
    path = folder / name
    with codec.open_writer(path, *frames.shape[1:3]) as writer:
        writer.write(frames, np.arange(len(frames)) / 25)
    sample.members[name] = path.read_bytes()


def forge(out: Path, change: Change, folder: Path) -> tuple[Mark, str]:
    """Change one sample of a shard that has several: (the forged mark, key of the sample)."""
    marks, _ = load_marks(Layout(out))
    mark = next(mark for mark in marks if len(mark.samples) > 1)
    key = mark.samples[1].key
    return forge_samples(out, mark.shard, {key}, change, folder), key


def forge_samples(out: Path, shard: str, keys: set[str], change: Change, folder: Path) -> Mark:
    """Change these samples of a shard: the forged mark."""
    layout = Layout(out)
    marks, _ = load_marks(layout)
    number = next(i for i, mark in enumerate(marks) if mark.shard == shard)
    mark, rows, tar = marks[number], [], folder / "forged.tar"
    with ShardWriter(tar) as writer:
        for sample, row in zip(iter_samples(layout.tar(shard)), mark.samples, strict=True):
            forged = Forged(dict(sample.members), row)
            if row.key in keys:
                change(forged, folder)
            rows.append(_placed(forged, writer))
    shutil.move(tar, layout.tar(shard))
    marks[number] = vouched(layout, replace(mark, samples=rows))
    layout.index.write_bytes(gather(marks).index)
    layout.dataset.write_bytes(dataset_bytes(layout, gather(marks), mark.fingerprint))
    return marks[number]


def _placed(forged: Forged, writer: ShardWriter) -> SampleRow:
    at = writer.add(forged.row.key, dict(forged.members))
    suffixes = {"cls": "cls", "flow": forged.row.flow_member, "json": "json"}
    suffixes["rgb"] = forged.row.rgb_member
    places: dict[str, Any] = {}
    for kind, suffix in suffixes.items():
        places[f"{kind}_offset"], places[f"{kind}_size"] = at.members[suffix]
    return replace(
        forged.row, sample_offset=at.offset, sample_size=at.size, sha256=at.sha256, **places
    )


def vouched(layout: Layout, mark: Mark) -> Mark:
    """The mark with the hashes of what lies there now, written beside it."""
    tar, idx = layout.tar(mark.shard).read_bytes(), dali_idx(mark.samples)
    mark = replace(
        mark,
        tar_bytes=len(tar),
        tar_sha256=hashlib.sha256(tar).hexdigest(),
        idx_sha256=hashlib.sha256(idx).hexdigest(),
    )
    layout.idx(mark.shard).write_bytes(idx)
    layout.mark(mark.shard).write_bytes(mark.to_json())
    return mark
