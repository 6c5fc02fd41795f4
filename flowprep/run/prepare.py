"""Everything before the first shard: the source, the frozen configuration, probing, the plan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from flowprep import manifest
from flowprep.codec.base import CODECS, Kind
from flowprep.config import Settings, dump_toml, load_toml, settings_from
from flowprep.errors import FlowprepError
from flowprep.quantize import make_quantizer
from flowprep.records import Clip, Failure, Video
from flowprep.run.executors import Resources
from flowprep.run.labelling import labelled
from flowprep.run.members import check_members
from flowprep.run.plan import class_list, make_plan
from flowprep.run.progress import Display
from flowprep.run.removed import kept_clips, kept_videos, known_removed
from flowprep.run.stored import load_classes, planned, retried
from flowprep.run.workplace import Workplace
from flowprep.shard.index import Mark
from flowprep.shard.layout import Layout
from flowprep.shard.plan import PlanRow
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


@dataclass(frozen=True, kw_only=True)
class Work:
    """The plan of a dataset, and what its shards are made from."""

    source: Source
    videos: list[Video]
    clips: dict[str, Clip]
    rows: list[PlanRow]
    classes: list[str]
    settings: Settings
    versions: dict[str, str]
    committed: set[str]  # shards that have a mark
    retry: dict[str, Mark]  # committed shards with failures to try again
    failed: dict[str, list[Failure]] = field(default_factory=dict)  # clips not tried, by shard
    tar_labels: dict[str, str] = field(default_factory=dict)  # key -> what its sample told before

    @property
    def todo(self) -> list[str]:
        """Shards to make, in order of name."""
        return sorted(({row.shard for row in self.rows} - self.committed) | set(self.retry))


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
    videos = _probed(request, layout, display, workplace, wanted, removed, dry)
    videos, clips = kept_clips(videos, settings, removed)
    if n_out := len({v.path for v in source.videos if removed.has_part(v.path)}):
        display.note(f"{n_out} videos of the source were removed, or clips of them, and stay out")
    committed = set(layout.committed())
    frozen, retry = retried(layout) if request.retry_failed else (None, {})
    rows = make_plan(clips, settings, old, committed, frozen)
    _tell_settled(rows, clips, committed, display)
    again = {failure.key for mark in retry.values() for failure in mark.failures}
    made = {row.key for row in rows if row.shard in committed} - again
    check_members(layout, [row for row in rows if row.key not in made], display)
    return Work(
        source=source,
        videos=videos,
        clips={clip.key: clip for clip in clips},
        rows=rows,
        classes=class_list(rows, load_classes(layout), class_order or source.classes),
        settings=settings,
        versions=versions,
        committed=committed,
        retry=retry,
    )


def _tell_settled(
    rows: list[PlanRow], clips: list[Clip], committed: set[str], display: Display
) -> None:
    """Finished clips stay as they are, whatever is said of them now."""
    said = {clip.key: (clip.split, clip.label) for clip in clips}
    kept = [r for r in rows if r.key in said and said[r.key] != (r.split, r.label)]
    gone = [row.path for row in rows if row.shard in committed and row.key not in said]
    if gone:
        display.note(
            f"{len(gone)} finished clips are not in the source now and stay, {gone[0]} for one"
        )
    if kept:
        both = [(kept[0].split, kept[0].label), said[kept[0].key]]
        was, now = (f"{split}/{label or '-'}" for split, label in both)
        display.note(
            f"{len(kept)} finished clips keep the label and split they were made with: "
            f"{kept[0].path} is {was}, now it would be {now}"
        )


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
    dry: bool,
) -> list[Video]:
    def save(videos: list[Video]) -> None:
        """What is known so far, for the next run; all of it is written with the plan."""
        if not dry and len(videos) < len(source.videos):
            videos = [video for video in videos if not removed.has_part(video.path)]
            layout.dataset.unlink(missing_ok=True)
            write_whole(layout.manifest, manifest.to_bytes(videos), layout.scratch)

    def probe(videos: list[Video]) -> Iterable[Video]:
        found = workplace.probe(source.root, videos, request.settings.decoder)
        return display.probing(found, len(videos))

    try:
        cached = manifest.load(layout.manifest)
    except Exception:  # noqa: BLE001 - damaged parquet raises anything; the files are probed again
        cached = []
    return manifest.refresh(source.videos, cached, probe, save, again=request.retry_failed)


def config_toml(work: Work) -> bytes:
    """config.toml: the settings and versions of the first run, and the source."""
    source: dict[str, Any] = {"root": str(work.source.root)}
    if work.settings.labels not in ("auto", "none"):
        source["classes"] = work.classes  # also those without a video, which nothing else names
    table = {"settings": asdict(work.settings), "source": source, "versions": work.versions}
    return dump_toml(table).encode()
