"""Everything before the first shard: the source, the frozen configuration, probing, the plan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowprep import manifest
from flowprep.codec.base import CODECS, Kind
from flowprep.config import Settings, dump_toml, load_toml, settings_from
from flowprep.errors import FlowprepError, StoreError
from flowprep.manifest import Manifest
from flowprep.quantize import make_quantizer
from flowprep.records import I64, Failure, Video
from flowprep.run.executors import Resources
from flowprep.run.kept import PlannedClip, are_planned, kept_clips, tell_settled
from flowprep.run.labelling import labelled
from flowprep.run.members import check_members
from flowprep.run.plan import class_list, make_plan
from flowprep.run.progress import Display
from flowprep.run.refresh import refresh
from flowprep.run.removed import kept_videos, known_removed
from flowprep.run.stored import failed_clips, load_classes, load_settled, planned
from flowprep.run.workplace import Workplace
from flowprep.shard.layout import Layout
from flowprep.shard.plan import Plan
from flowprep.shard.removed import Removed
from flowprep.sources import Source, read_listed, read_source
from flowprep.storage import Place, write_whole


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for."""

    src: str
    out: str
    settings: Settings
    resources: Resources
    annotations: tuple[str, ...] = ()  # files or folders of the dataset that settings.labels names
    join_report: str = ""  # csv to write
    lists: dict[str, Path] = field(default_factory=dict)  # split -> list of folders of images
    classes: list[str] = field(default_factory=list)  # names of the labels in these lists
    retry_failed: bool = False
    strict_versions: bool = False

    @property
    def command(self) -> str:
        """As others are told who has the dataset."""
        command = "import" if self.settings.style else "extract"
        return f"{command} --retry-failed" if self.retry_failed else command


@dataclass(frozen=True, kw_only=True)
class Work:
    """The plan of a dataset, and what its shards are made from."""

    source: Source
    videos: Manifest
    plan: Plan
    classes: list[str]
    settings: Settings
    versions: dict[str, str]
    committed: set[str]  # shards that have a mark
    again: dict[str, frozenset[str]]  # those that are made again -> keys of samples that stay
    is_settled: bool = False  # the plan has the clips of `videos`, as they are, and no other
    is_stored: bool = False  # both are the dataset's files
    failed: dict[str, list[Failure]] = field(default_factory=dict)  # clips not tried, by shard
    tar_labels: dict[str, str] = field(default_factory=dict)  # key -> what its sample told before

    @cached_property
    def todo(self) -> list[str]:
        """Shards to make, in order of name."""
        return sorted((set(self.plan.shards) - self.committed) | set(self.again))

    @cached_property
    def todo_places(self) -> I64:
        """Where the rows of these are in the plan."""
        todo = set(self.todo)
        wanted = np.array([shard in todo for shard in self.plan.shards], bool)
        return np.flatnonzero(wanted[self.plan.shard_numbers])

    @cached_property
    def video_places(self) -> I64:
        """Of each row of the plan the first video of its path in `videos`; -1 where there is none.

        Those of one path follow one another.
        """
        paths = self.videos.columns["path"].combine_chunks()
        found = pc.index_in(self.plan.table["path"], value_set=paths)
        return np.asarray(pc.fill_null(found, -1).combine_chunks(), np.int64)


def prepare(
    request: Request, layout: Layout, display: Display, workplace: Workplace, dry: bool = False
) -> Work:
    """Read, freeze, probe and plan; with `dry` nothing is written."""
    _check_codecs(request.settings)
    source = _source(request)
    for note in source.notes:
        display.note(note)
    settings, versions = _frozen(request, layout, display, workplace, source.root, dry)
    old = planned(layout)
    places, report = request.annotations, request.join_report
    source, class_order = labelled(source, settings.labels, places, report, old, display)
    removed = known_removed(layout)
    wanted = replace(source, videos=kept_videos(source.videos, removed))
    _tell_removed(source, removed, display)
    settled = load_settled(layout, settings)
    cached = _cached(layout, settled)
    videos = _probed(request, layout, display, workplace, wanted, removed, cached, dry)
    source, wanted = replace(source, videos=[]), replace(wanted, videos=[])
    committed = set(layout.committed())
    failed = failed_clips(layout) if request.retry_failed else {}
    plan, is_settled = old, True
    is_stored = videos is cached and videos.sha256 == settled
    if not is_stored:
        videos, clips = kept_clips(videos, settings, removed)
        keys = {failure.key for failures in failed.values() for failure in failures}
        plan, is_settled = _replanned(clips, settings, old, committed, keys, display)
    again = {shard: _others(plan, shard, failed[shard]) for shard in failed}
    work = Work(
        source=source,
        videos=videos,
        plan=plan,
        classes=class_list(
            pc.unique(plan.table["label"]).to_pylist(),
            load_classes(layout),
            class_order or source.classes,
        ),
        settings=settings,
        versions=versions,
        committed=committed,
        again=again,
        is_settled=is_settled,
        is_stored=is_stored,
    )
    check_members(layout, _to_make(work), display)
    return work


def _tell_removed(source: Source, removed: Removed, display: Display) -> None:
    out = removed.records and {v.path for v in source.videos if removed.has_part(v.path)}
    if out:
        display.note(
            f"{len(out)} videos of the source were removed, or clips of them, and stay out"
        )


def _replanned(
    clips: list[PlannedClip],
    settings: Settings,
    old: Plan,
    committed: set[str],
    failed: set[str],
    display: Display,
) -> tuple[Plan, bool]:
    """The plan now, and whether it has these clips, as they are, and no other."""
    rows = make_plan(clips, settings, old, committed, failed)
    said = {clip.key: clip for clip in clips}
    tell_settled(rows, said, committed, display)
    return Plan.of(rows), are_planned(rows, said)


def _others(plan: Plan, shard: str, failed: list[Failure]) -> frozenset[str]:
    """Keys of the samples of a shard, in which these clips failed."""
    keys = plan.table["key"].take(plan.places(shard)).to_pylist()
    return frozenset(keys) - {failure.key for failure in failed}


def _to_make(work: Work) -> pa.Table:
    """The rows of the plan that become samples, or fail, in this run."""
    rows = work.plan.table.take(work.todo_places)
    kept = pa.array([key for keys in work.again.values() for key in keys], pa.string())
    return rows.filter(pc.invert(pc.is_in(rows["key"], value_set=kept)))


def _source(request: Request) -> Source:
    labels = request.settings.labels
    if request.lists:
        return read_listed(request.src, request.lists, request.classes, labels)
    return read_source(request.src, labels, request.settings.style)


def _frozen(
    request: Request, layout: Layout, display: Display, workplace: Workplace, root: Place, dry: bool
) -> tuple[Settings, dict[str, str]]:
    """The settings and versions of this dataset: those of the first run, or now chosen.

    Raises FlowprepError when the folder was made with other settings (or, with --strict-versions,
    other versions).
    """
    wanted = request.settings
    stored: dict[str, Any] = load_toml(layout.config) if layout.config.exists() else {}
    if stored and wanted.engine == "auto":
        wanted = replace(wanted, engine=stored["settings"]["engine"])
    try:
        engine, build = workplace.choose_engine(wanted, root, None if dry else layout)
    except TypeError as error:
        raise FlowprepError(
            f"engine {wanted.engine!r} does not take these parameters: {error}",
            f"given were {wanted.engine_params}; leave out the unknown one",
        ) from error
    if wanted.engine == "auto":
        display.note(f"engine: {engine} ({build})")
    wanted = replace(wanted, engine=engine)
    versions = workplace.versions()
    if not stored:
        return wanted, versions
    first = settings_from(stored["settings"], str(layout.config))
    if changes := first.differences(wanted):
        raise FlowprepError(
            f"{request.out} was made with other settings: {'; '.join(changes)}",
            "give the options it was made with (_flowprep/config.toml has them), or another --out",
        )
    compare_versions(stored["versions"], versions, request, display)
    return first, versions


def compare_versions(
    first: dict[str, str], now: dict[str, str], request: Request, display: Display
) -> None:
    """Tell which versions differ; with --strict-versions raise FlowprepError."""
    names = sorted(set(first) | set(now))
    changes = [
        f"{n}: {first.get(n, 'none')} -> {now.get(n, 'none')}"
        for n in names
        if first.get(n) != now.get(n)
    ]
    if changes and request.strict_versions:
        raise FlowprepError(
            f"{request.out} was made with other versions: {'; '.join(changes)}",
            "install those, or leave --strict-versions out",
        )
    if changes:
        display.note(f"made with other versions so far: {'; '.join(changes)}")


def _check_codecs(settings: Settings) -> None:
    """Raise FlowprepError when a codec is unknown or stores something else."""
    quantizer = make_quantizer(settings.flow_map, settings.bound_px)
    kind: Kind = "flow16" if quantizer.highest > 255 else "flow8"
    _check_codec("--rgb-codec", settings.rgb_codec, "rgb", "RGB frames")
    what = f"the {kind[4:]}-bit codes of --flow-map {settings.flow_map}"
    _check_codec("--flow-codec", settings.flow_codec, kind, what)


def _check_codec(flag: str, name: str, kind: Kind, what: str) -> None:
    fitting = sorted(n for n, entry in CODECS.items() if entry.kind == kind)
    if name not in fitting:
        problem = f"does not store {what}" if name in CODECS else "is not known"
        raise FlowprepError(f"{flag} {name} {problem}", f"give {flag} {' or '.join(fitting)}")


def _probed(
    request: Request,
    layout: Layout,
    display: Display,
    workplace: Workplace,
    source: Source,
    removed: Removed,
    cached: Manifest,
    dry: bool,
) -> Manifest:
    def save(videos: Manifest) -> None:
        """What is known so far, for the next run; all of it is written with the plan."""
        if not dry and len(videos) < len(source.videos):
            if removed.records:
                paths = videos.columns["path"].to_pylist()
                videos = videos.take([i for i, p in enumerate(paths) if not removed.has_part(p)])
            layout.dataset.unlink(missing_ok=True)
            write_whole(layout.manifest, manifest.to_bytes(videos), layout.scratch)

    def probe(videos: list[Video]) -> Iterable[Video]:
        found = workplace.probe(source.root, videos, request.settings.decoder)
        return display.probing(found, len(videos))

    return refresh(source.videos, cached, probe, save, again=request.retry_failed)


def _cached(layout: Layout, settled: str) -> Manifest:
    """What was found before. Damaged parquet raises anything; the files are probed again then."""
    try:
        return manifest.load(layout.manifest, settled)
    except StoreError:
        raise
    except Exception:  # noqa: BLE001
        return Manifest.of([])


def config_toml(work: Work) -> bytes:
    """config.toml: the settings and versions of the first run, and the source."""
    source: dict[str, Any] = {"root": str(work.source.root)}
    if work.settings.labels not in ("auto", "none"):
        source["classes"] = work.classes  # also those without a video, which nothing else names
    table = {"settings": asdict(work.settings), "source": source, "versions": work.versions}
    return dump_toml(table).encode()
