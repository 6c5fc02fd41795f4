"""Where the files of a dataset lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flowprep.errors import FlowprepError
from flowprep.storage import INTERNAL, refuse_url


@dataclass(frozen=True)
class Layout:
    """Paths of a dataset folder."""

    out: Path

    def holds(self, path: Path) -> bool:
        """Whether a path is that of the dataset, or leads into it."""
        return path.resolve().is_relative_to(self.out)

    @property
    def internal(self) -> Path:
        return self.out / INTERNAL

    @property
    def marks(self) -> Path:
        return self.internal / "shards"

    @property
    def scratch(self) -> Path:
        """Unfinished files; emptied at the start and gone at the end of a run."""
        return self.internal / "tmp"

    @property
    def swap(self) -> Path:
        """A folder per shard that is ready to take the place of an old one."""
        return self.internal / "swap"

    @property
    def lock(self) -> Path:
        return self.internal / "lock"

    @property
    def config(self) -> Path:
        return self.internal / "config.toml"

    @property
    def manifest(self) -> Path:
        return self.internal / "manifest.parquet"

    @property
    def plan(self) -> Path:
        return self.internal / "plan.parquet"

    @property
    def classes(self) -> Path:
        return self.internal / "classes.txt"

    @property
    def removed(self) -> Path:
        return self.internal / "removed.parquet"

    @property
    def pending(self) -> Path:
        """A change of labels or a removal that is decided and not finished."""
        return self.internal / "pending.json"

    @property
    def index(self) -> Path:
        return self.internal / "index.parquet"

    @property
    def failures(self) -> Path:
        return self.internal / "failures.parquet"

    @property
    def dataset(self) -> Path:
        return self.internal / "dataset.json"

    @property
    def runs(self) -> Path:
        """What each run took. Nothing vouches for it."""
        return self.internal / "runs.jsonl"

    @property
    def tables(self) -> list[Path]:
        """The files of the whole dataset that `dataset.json` vouches for."""
        made = [self.index, self.failures]
        return [self.config, self.manifest, self.plan, self.classes, self.removed, *made]

    def tar(self, shard: str) -> Path:
        return self.out / f"{shard}.tar"

    def mark(self, shard: str) -> Path:
        return self.marks / f"{shard}.json"

    def idx(self, shard: str) -> Path:
        return self.marks / f"{shard}.idx"

    def committed(self) -> list[str]:
        """Names of the shards that have a commit mark, sorted."""
        return sorted(path.stem for path in self.marks.glob("*.json"))


def layout_of(out: str | Path) -> Layout:
    """The layout of a dataset that is there. Raises FlowprepError where none is."""
    layout = Layout(refuse_url(str(out), "SHARDS").resolve())
    if not layout.out.is_dir():
        raise FlowprepError(f"{out}: no such folder", "give the folder that flowprep extract wrote")
    if not layout.internal.is_dir():
        raise FlowprepError(
            f"{out}: no flowprep dataset here",
            f"give the folder that flowprep extract wrote: {INTERNAL}/ lies in it",
        )
    return layout
