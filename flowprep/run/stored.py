"""What a dataset holds already: its plan, its marks, its classes."""

from __future__ import annotations

from flowprep.errors import FlowprepError
from flowprep.shard.index import Mark, load_mark
from flowprep.shard.layout import Layout
from flowprep.shard.plan import PlanRow, load_plan


def planned(layout: Layout) -> list[PlanRow]:
    """The plan, [] before there is one. Raises FlowprepError when it is damaged."""
    try:
        return load_plan(layout.plan)
    except Exception as error:  # damaged parquet raises anything
        raise FlowprepError(
            f"{layout.plan} is damaged: {error}", "put a copy of it back, or use another --out"
        ) from error


def load_marks(layout: Layout) -> list[Mark]:
    """The commit marks, by name of shard. Raises FlowprepError when one is damaged."""
    marks = []
    for shard in layout.committed():
        try:
            marks.append(load_mark(layout.mark(shard)))
        except ValueError as error:
            raise FlowprepError(
                f"{layout.mark(shard)}: {error}", "delete it, and the shard is made again"
            ) from error
    return marks


def retried(layout: Layout) -> tuple[set[str], dict[str, Mark]]:
    """(keys of finished samples, shards that have failures)."""
    marks = load_marks(layout)
    finished = {row.key for mark in marks for row in mark.samples}
    return finished, {mark.shard: mark for mark in marks if mark.failures}


def load_classes(layout: Layout) -> list[str]:
    """Class names by index."""
    if not layout.classes.exists():
        return []
    return layout.classes.read_text(encoding="utf-8").splitlines()
