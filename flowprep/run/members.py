"""Whether samples have a .cls: all of a dataset, or none."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from flowprep.errors import FlowprepError
from flowprep.run.progress import Display
from flowprep.shard.index import Mark, load_mark
from flowprep.shard.layout import Layout


def have_cls(layout: Layout) -> bool | None:
    """What the samples that are there have; None when there is none yet."""
    first = next((mark.samples[0] for mark in _readable_marks(layout) if mark.samples), None)
    return None if first is None else first.cls_offset >= 0


def _readable_marks(layout: Layout) -> Iterator[Mark]:
    for shard in layout.committed():
        try:
            yield load_mark(layout.mark(shard))
        except (ValueError, OSError):
            continue


def check_members(layout: Layout, rows: pa.Table, display: Display) -> None:
    """Raise FlowprepError when a clip to make (a row of the plan) has no label, and the samples
    that are there have.
    """
    has_cls, bare = have_cls(layout), rows.filter(pc.equal(rows["label"], ""))["path"]
    if has_cls and len(bare):
        raise FlowprepError(
            f"every sample of {layout.out} has a label (.cls), and {len(bare)} of the clips to "
            f"make have none, {bare[0].as_py()!r} for one",
            "label them as the others were: by their folder, or in the list",
        )
    if has_cls is False and len(bare) < len(rows):
        display.note(
            "no sample here has a .cls, so labels go into the index alone; "
            "flowprep relabel --cls adds it to all of them"
        )
