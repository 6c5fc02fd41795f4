"""Which samples are computed again, from which videos, and with what."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from flowprep import manifest
from flowprep.clips import clip_key
from flowprep.config import Settings, load_toml, settings_from
from flowprep.errors import FlowprepError, StoreError
from flowprep.flow.base import Engine, get_engine
from flowprep.manifest import Manifest
from flowprep.records import Video
from flowprep.shard.index import Mark
from flowprep.shard.layout import Layout, layout_of
from flowprep.shard.schema import SampleRow
from flowprep.sources import place_again, root_at
from flowprep.storage import Place, plain
from flowprep.verify.shallow import load_marks


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A sample to make again; `video` is None when the manifest does not know its source."""

    shard: str
    row: SampleRow
    video: Video | None


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where and how the subjects were made."""

    out: Place
    root: Place
    settings: Settings
    engine_options: dict[str, Any] = field(default_factory=dict)
    threads: int = 1

    def make_engine(self) -> Engine:
        """Raises FlowprepError when it is not live here."""
        options = self.settings.engine_params | self.engine_options
        return get_engine(self.settings.engine, threads=self.threads, **options)


def choose(marks: list[Mark], n: int, seed: int) -> list[tuple[str, SampleRow]]:
    """`n` samples of a dataset (all, if there are no more), the same for the same seed."""
    everything = [(mark.shard, row) for mark in marks for row in mark.samples]
    everything.sort(key=lambda item: item[1].key)
    return random.Random(seed).sample(everything, min(n, len(everything)))


def prepare(out: Place, n: int, seed: int, src: str) -> tuple[Bench, list[Subject]]:
    """The samples that are chosen, and how they were made. Raises FlowprepError."""
    layout = layout_of(out)
    bench, videos = _bench(layout, src)
    marks, _ = load_marks(layout)
    chosen = choose(marks, n, seed)
    if not src and (far := [row.path for _, row in chosen if "://" in row.path]):
        raise FlowprepError(
            f"the dataset was made from {far[0]}",
            "say with --src that you mean it: the list of videos, as it was given to extract",
        )
    by_path = _by_path(videos, {row.path for _, row in chosen})
    return bench, [
        Subject(shard=shard, row=row, video=_video_of(row, by_path.get(row.path, [])))
        for shard, row in chosen
    ]


def _bench(layout: Layout, src: str) -> tuple[Bench, Manifest]:
    """How the dataset was made, and its videos."""
    try:
        table = load_toml(plain(layout.config))
        settings, recorded = settings_from(table["settings"], ""), str(table["source"]["root"])
        videos = manifest.load(plain(layout.manifest))
    except StoreError:
        raise
    except Exception as error:
        raise FlowprepError(
            f"{layout.internal}: the settings or the manifest are damaged: {error}",
            "leave --recompute out to see what is damaged, and --repair what can be",
        ) from error
    root = root_at(place_again(recorded, src))
    return Bench(out=layout.out, root=root, settings=settings), videos


def _by_path(videos: Manifest, paths: set[str]) -> dict[str, list[Video]]:
    """The videos of these paths."""
    found: dict[str, list[Video]] = {}
    for place, path in enumerate(videos.columns["path"].to_pylist()):
        if path in paths:
            found.setdefault(path, []).append(videos[place])
    return found


def _video_of(row: SampleRow, videos: list[Video]) -> Video | None:
    """Of the ranges of a file the one that gave this sample."""
    return next((v for v in videos if clip_key(v, row.clip_number) == row.key), None)
