"""What the files beside the shards tell of a dataset that others may be changing meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from flowprep.errors import FlowprepError
from flowprep.shard.index import load_dataset, parse_failed
from flowprep.shard.layout import Layout
from flowprep.shard.plan import Plan, read_plan
from flowprep.shard.tables import parquet_file
from flowprep.storage import Place, each, listed

T = TypeVar("T")
MOST_MARKS = 1000
"""So many marks are opened at most, the newest: for clips that failed after failures.parquet was
written.
"""


class Survey:
    """Of the names that are there when it is made.

    `problems` gets what is damaged. Raises StoreError, OSError for what cannot be read at all.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._mtime_ns = {name: mtime_ns for name, (_, mtime_ns) in listed(layout.internal).items()}
        self.marks = {  # shard -> when it was marked, by the clock of the storage, in ns
            name.removeprefix("shards/").removesuffix(".json"): mtime_ns
            for name, mtime_ns in self._mtime_ns.items()
            if name.startswith("shards/") and name.endswith(".json")
        }
        self.problems: list[str] = []

    def has(self, name: str) -> bool:
        return name in self._mtime_ns

    def dataset(self) -> dict[str, Any]:
        """dataset.json, {} when there is none."""
        return self._read("dataset.json", lambda: load_dataset(self._layout.dataset), {})

    def plan(self) -> Plan | None:
        return self._read("plan.parquet", lambda: read_plan(self._layout.plan), None)

    def n_videos(self) -> int:
        """Of the manifest: those that are probed so far."""

        def count() -> int:
            with parquet_file(self._layout.manifest) as manifest:
                return int(manifest.metadata.num_rows)

        return self._read("manifest.parquet", count, 0)

    def failed(self) -> tuple[int, int]:
        """(clips that failed in shards that have a mark, such shards that were not looked at)."""
        told = self._read("failures.parquet", self._failures, None)
        told_ns = self._mtime_ns.get("failures.parquet", 0) if told is not None else 0
        since = [shard for shard, mtime_ns in self.marks.items() if mtime_ns >= told_ns]
        since.sort(key=self.marks.__getitem__, reverse=True)
        before = self.marks.keys() - set(since)
        found = each(self._failed_of, map(self._layout.mark, since[:MOST_MARKS]))
        return sum(found) + sum(s in before for s in told or ()), len(since[MOST_MARKS:])

    def _failures(self) -> list[str]:
        """The shard of each failed clip, as the last run that ended has indexed them."""
        with parquet_file(self._layout.failures) as table:
            shards: list[str] = table.read(columns=["shard"])["shard"].to_pylist()
        return shards

    def _failed_of(self, mark: Place) -> int:
        return self._read(f"shards/{mark.name}", lambda: len(parse_failed(mark.read_bytes())), 0)

    def _read(self, name: str, load: Callable[[], T], otherwise: T) -> T:
        """What a file tells, unless it is damaged, or gone."""
        if not self.has(name):
            return otherwise
        try:
            return load()
        except FileNotFoundError:
            return otherwise
        except FlowprepError:
            raise
        except Exception as error:  # damaged parquet raises anything
            if isinstance(error, OSError) and error.errno:
                raise
            what = str(error).splitlines()[0] if str(error) else type(error).__name__
            self.problems.append(f"{name} is damaged: {what}")
            return otherwise
