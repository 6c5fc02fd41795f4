"""Where the files of a dataset lie."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from flowprep.errors import FlowprepError
from flowprep.storage import INTERNAL, Place, RemotePath, file_names, place_of, scratch_of

HEARTBEAT = re.compile(r"run\.json|worker-[0-9]{1,9}\.json")


@dataclass(frozen=True)
class Layout:
    """Paths of a dataset, or URLs."""

    out: Place

    @property
    def is_remote(self) -> bool:
        return isinstance(self.out, RemotePath)

    def holds(self, path: Path) -> bool:
        """Whether a path is that of the dataset, or leads into it."""
        return isinstance(self.out, Path) and path.resolve().is_relative_to(self.out)

    @property
    def internal(self) -> Place:
        return self.out / INTERNAL

    @property
    def marks(self) -> Place:
        return self.internal / "shards"

    @property
    def scratch(self) -> Path:
        """Unfinished files, of this machine; emptied at the start and gone at the end of a run."""
        if isinstance(self.out, RemotePath):
            return scratch_of(self.out.url)
        return self.out / INTERNAL / "tmp"

    @property
    def swap(self) -> Place:
        """A folder per shard that is ready to take the place of an old one."""
        return self.internal / "swap"

    @property
    def lock(self) -> Place:
        return self.internal / "lock"

    @property
    def heartbeats(self) -> Place:
        """What a run and its workers say of themselves while it is on."""
        return self.internal / "heartbeats"

    @property
    def run_beat(self) -> Place:
        return self.heartbeats / "run.json"

    @property
    def config(self) -> Place:
        return self.internal / "config.toml"

    @property
    def manifest(self) -> Place:
        return self.internal / "manifest.parquet"

    @property
    def plan(self) -> Place:
        return self.internal / "plan.parquet"

    @property
    def settled(self) -> Place:
        """Hashes of a manifest and of the plan that has exactly its clips, until all are made."""
        return self.internal / "settled.json"

    @property
    def classes(self) -> Place:
        return self.internal / "classes.txt"

    @property
    def removed(self) -> Place:
        return self.internal / "removed.parquet"

    @property
    def pending(self) -> Place:
        """A change of labels or a removal that is decided and not finished."""
        return self.internal / "pending.json"

    @property
    def index(self) -> Place:
        return self.internal / "index.parquet"

    @property
    def failures(self) -> Place:
        return self.internal / "failures.parquet"

    @property
    def dataset(self) -> Place:
        return self.internal / "dataset.json"

    @property
    def runs(self) -> Place:
        """What each run took. Nothing vouches for it."""
        return self.internal / "runs.jsonl"

    @property
    def tables(self) -> list[Place]:
        """The files of the whole dataset that `dataset.json` vouches for."""
        made = [self.index, self.failures]
        return [self.config, self.manifest, self.plan, self.classes, self.removed, *made]

    def tar(self, shard: str) -> Place:
        return self.out / f"{shard}.tar"

    def mark(self, shard: str) -> Place:
        return self.marks / f"{shard}.json"

    def idx(self, shard: str) -> Place:
        return self.marks / f"{shard}.idx"

    def worker_beat(self, worker: int) -> Place:
        return self.heartbeats / f"worker-{worker}.json"

    def is_heartbeat(self, place: Place) -> bool:
        """By its name."""
        return place.parent == self.heartbeats and bool(HEARTBEAT.fullmatch(place.name))

    def committed(self) -> list[str]:
        """Names of the shards that have a commit mark, sorted."""
        names = file_names(self.marks)
        return [name[: -len(".json")] for name in names if name.endswith(".json")]


def local_layout_of(out: str | Place, what: str) -> Layout:
    """The same, on this machine. Raises FlowprepError for a URL: it cannot be `what` in place."""
    layout = layout_of(out)
    if layout.is_remote:
        raise FlowprepError(
            f"{out}: a dataset in object storage cannot be {what} in place",
            f"copy it here, let it be {what} here, and copy it back",
        )
    return layout


def layout_of(out: str | Place) -> Layout:
    """The layout of a dataset that is there. Raises FlowprepError where none is."""
    layout = Layout(place_of(str(out), "SHARDS").resolve())
    if layout.internal.is_dir():
        return layout
    if not layout.is_remote and not layout.out.is_dir():
        raise FlowprepError(f"{out}: no such folder", "give the folder that flowprep extract wrote")
    raise FlowprepError(
        f"{out}: no flowprep dataset here",
        f"give the folder that flowprep extract wrote: {INTERNAL}/ lies in it",
    )
