"""What a dataset holds already: its plan, its marks, its classes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import TypeVar

from flowprep import __version__
from flowprep.config import Settings
from flowprep.errors import FlowprepError, StoreError
from flowprep.records import Failure
from flowprep.shard.index import Mark, canonical, parse_failed, parse_mark
from flowprep.shard.layout import Layout
from flowprep.shard.plan import Plan, read_plan
from flowprep.storage import read_many, sha256_file

T = TypeVar("T")


def planned(layout: Layout) -> Plan:
    """The plan, empty before there is one. Raises FlowprepError when it is damaged."""
    try:
        return read_plan(layout.plan)
    except StoreError:
        raise
    except Exception as error:  # damaged parquet raises anything
        raise FlowprepError(
            f"{layout.plan} is damaged: {error}", "put a copy of it back, or use another --out"
        ) from error


def load_marks(layout: Layout) -> Iterator[Mark]:
    """The commit marks, one at a time, by name of shard. Raises FlowprepError for a damaged one."""
    return (mark for _, mark in _read_marks(layout, parse_mark))


def failed_clips(layout: Layout) -> dict[str, list[Failure]]:
    """The failures of each shard that has such. Raises FlowprepError when a mark is damaged."""
    return {shard: failures for shard, failures in _read_marks(layout, parse_failed) if failures}


def _read_marks(layout: Layout, parse: Callable[[bytes], T]) -> Iterator[tuple[str, T]]:
    shards = layout.committed()
    for shard, data in zip(shards, read_many(map(layout.mark, shards)), strict=True):
        try:
            yield shard, parse(data)
        except ValueError as error:
            raise FlowprepError(
                f"{layout.mark(shard)}: {error}", "delete it, and the shard is made again"
            ) from error


def load_classes(layout: Layout) -> list[str]:
    """Class names by index."""
    if not layout.classes.exists():
        return []
    return layout.classes.read_text(encoding="utf-8").splitlines()


def settled_bytes(listed: bytes, planned: bytes, settings: Settings) -> bytes:
    """settled.json, of the bytes of a manifest and of the plan that has exactly its clips."""
    return canonical({"manifest": _sha256(listed), **_told(_sha256(planned), settings)})


def load_settled(layout: Layout, settings: Settings) -> str:
    """The hash of the manifest whose clips are those of the plan exactly, "" if none is known."""
    try:
        told = json.loads(layout.settled.read_bytes())
        listed = str(told.pop("manifest"))
        return listed if told == _told(sha256_file(layout.plan), settings) else ""
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return ""


def _told(plan_sha256: str, settings: Settings) -> dict[str, str]:
    """The plan, and what cuts videos into clips."""
    return {"plan": plan_sha256, "settings": settings.fingerprint(), "flowprep": __version__}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
