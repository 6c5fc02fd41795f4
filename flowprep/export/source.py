"""The dataset that is exported."""

from __future__ import annotations

from flowprep.config import load_toml, settings_from
from flowprep.errors import FlowprepError
from flowprep.shard.index import load_mark
from flowprep.shard.layout import Layout
from flowprep.shard.schema import SampleRow
from flowprep.storage import exists, plain


def finished_samples(
    layout: Layout, shards: str, *, may_be_empty: bool
) -> dict[str, tuple[SampleRow, str]]:
    """key -> (row, shard) of what is committed. Raises FlowprepError when there is nothing."""
    if exists(layout.pending):
        raise FlowprepError(
            f"{shards} is being changed by flowprep relabel or remove, or that was interrupted",
            f"wait for it, or end it by flowprep verify {shards} --repair",
        )
    found = dict[str, tuple[SampleRow, str]]()
    for shard in layout.committed():
        try:
            mark = load_mark(plain(layout.mark(shard)))
        except ValueError as error:
            raise FlowprepError(
                f"{layout.mark(shard)} is damaged: {error}", "flowprep verify --repair mends it"
            ) from error
        found |= {row.key: (row, shard) for row in mark.samples}
    if not found and not may_be_empty:
        raise FlowprepError(
            f"{shards} holds no finished sample",
            "extract or import some first; flowprep report tells of clips that failed",
        )
    return found


def identity(layout: Layout) -> str:
    """What tells datasets apart: what they were made of, and how."""
    config = load_toml(layout.config)
    settings = settings_from(config["settings"], str(layout.config))
    return f"{settings.fingerprint()} of {config['source']['root']}"
