"""The shards of a repair: which are made again, what of them stays, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from flowprep import manifest
from flowprep.errors import FlowprepError
from flowprep.manifest import Manifest
from flowprep.records import Failure, Finding, Video
from flowprep.run.executors import Resources
from flowprep.run.extract import check_space, run_jobs
from flowprep.run.held import Hold
from flowprep.run.jobs import planned_shards
from flowprep.run.machine import installed_versions
from flowprep.run.prepare import Request, Work, compare_versions
from flowprep.run.probing import probe_all
from flowprep.run.progress import Display
from flowprep.run.salvage import (
    Known,
    Marks,
    healthy_samples,
    is_whole,
    sound_mark,
    unclaimed,
)
from flowprep.run.schedule import Outcome
from flowprep.run.stored import load_classes
from flowprep.run.workplace import Workplace, open_workplace
from flowprep.shard.index import Mark, dali_idx
from flowprep.shard.layout import Layout
from flowprep.shard.plan import Plan
from flowprep.shard.schema import SampleRow
from flowprep.sources import Source, identity
from flowprep.storage import Place, oddity, relative, write_whole

OF_CONTENT = frozenset({"sample", "rgb-differs", "flow-differs", "source-index", "made-otherwise"})
"""Findings about samples that have the bytes their mark vouches for, and are wrong all the same."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the user asked for; `check` says what is wrong with the dataset as it is now, and `show`
    is told before anything is done about it.
    """

    out: str
    src: str  # where the videos are; "" = where they were
    resources: Resources
    check: Callable[[], list[Finding]]
    show: Callable[[list[Finding]], None]


@dataclass(kw_only=True)
class Repaired:
    """What a repair found and did."""

    found: list[Finding]
    rebuilt: dict[str, tuple[int, int]] = field(default_factory=dict)  # (samples copied, made)
    written: list[str] = field(default_factory=list)  # other files
    other_bytes: list[str] = field(default_factory=list)  # samples that did not come out as before
    failures: list[Failure] = field(default_factory=list)  # clips that are samples no more
    left: dict[str, str] = field(default_factory=dict)  # shards that were not touched, and why
    lost: dict[str, str] = field(default_factory=dict)  # shards that could not be made, and why


@dataclass(kw_only=True)
class Site:
    """A dataset under repair."""

    order: Order
    layout: Layout
    known: Known
    display: Display
    told: Repaired

    def write(self, path: Place, data: bytes) -> None:
        """Unless that is what is there."""
        if not oddity(path) and path.read_bytes() == data:
            return
        write_whole(path, data, self.layout.scratch)
        self.told.written.append(relative(path, self.layout.out))

    def is_found(self, path: Place) -> bool:
        name = relative(path, self.layout.out)
        return any(finding.file == name for finding in self.told.found)

    @property
    def suspects(self) -> set[str]:
        """Planned shards that a finding names."""
        named = {f.shard for f in self.told.found if f.code != "index-row"}
        return named & self.known.planned.keys()


def kept_samples(site: Site, marks: Marks) -> dict[str, list[SampleRow]]:
    """The shards to make again -> the samples of each that stay."""
    layout = site.layout
    keep: dict[str, list[SampleRow]] = {}
    for shard, mark in marks.items():
        if mark is None:
            keep[shard] = []
        elif shard in site.suspects and not is_whole(layout, mark):
            keep[shard] = healthy_samples(layout, mark)
        elif wrong := _wrong_samples(site, mark):
            keep[shard] = [row for row in mark.samples if row.key not in wrong]
        elif shard in site.suspects:
            site.write(layout.idx(shard), dali_idx(mark.samples))
    return keep


def _wrong_samples(site: Site, mark: Mark) -> set[str]:
    """Keys of samples that are wrong although their bytes are right; a tar that does not read as
    one has no other. Of a damaged tar the hashes tell more than what a reader makes of it.
    """
    found = [f for f in site.told.found if f.shard == mark.shard and f.code in OF_CONTENT]
    keys = {finding.key for finding in found}
    return {row.key for row in mark.samples} if "" in keys else keys


def work_of(
    site: Site,
    source: Source,
    marks: Marks,
    keep: dict[str, list[SampleRow]],
) -> Work:
    """The plan as an extraction knows it, of which only the shards in `keep` are left to make."""
    known = site.known
    settled = {row.key for rows in keep.values() for row in rows}
    settled |= {failure.key for mark in marks.values() if mark for failure in mark.failures}
    wanted = {r.path for r in known.rows if r.shard in keep and r.key not in settled}
    _require_root(source, wanted)
    videos = _now(site, source, wanted)
    now = {video.path: video for video in videos}
    site.told.left = _unknown_and_gone(site, marks, keep, now)
    todo = {shard: rows for shard, rows in keep.items() if shard not in site.told.left}
    old = {shard: mark for shard, mark in marks.items() if mark and shard in todo}
    return Work(
        source=source,
        videos=Manifest.of(videos),
        plan=Plan.of(known.rows),
        classes=load_classes(site.layout),
        settings=known.settings,
        versions=installed_versions(),
        committed=known.planned.keys() - todo.keys(),
        tar_labels={r.key: r.tar_label for mark in old.values() for r in mark.samples},
        again={shard: frozenset(row.key for row in todo[shard]) for shard in old},
        failed={shard: mark.failures for shard, mark in old.items()},
    )


def _require_root(source: Source, wanted: set[str]) -> None:
    """Raise FlowprepError when not some videos are gone but the place where they were is."""
    if wanted and not source.root.is_dir():
        raise FlowprepError(
            f"{len(wanted)} videos are needed, and {source.root} is not there",
            "mount it, or say with --src where the videos are now; if they are gone for good, "
            "give an empty folder: what cannot be made again becomes failures",
        )


def _now(site: Site, source: Source, wanted: set[str]) -> list[Video]:
    """The videos as their files are now, those of one path together. Those of another time are
    probed.
    """
    root = source.root
    videos = sorted((video for video in source.videos if video.path in wanted), key=identity)
    before = {video.path: video for video in videos}
    seen = [manifest.current(video, root, lambda now: now) for video in before.values()]
    touched = [now for now in seen if not now.reason and now.mtime_ns != before[now.path].mtime_ns]
    limits, reader = site.order.resources.probe_limits, site.known.settings.decoder
    found = probe_all(root, limits, touched, reader)
    probed = {now.path: now for now in site.display.probing(found, len(touched))}
    return [
        manifest.current(video, root, lambda now: _of_range(probed.get(now.path, now), now))
        for video in videos
    ]


def _of_range(found: Video, video: Video) -> Video:
    """What was found of a file, told of the range of it that a video is."""
    told = {name: getattr(found, name) for name in ("mtime_ns", "media", "reason", "message")}
    return replace(video, **told)


def _unknown_and_gone(
    site: Site,
    marks: Marks,
    keep: dict[str, list[SampleRow]],
    now: dict[str, Video],
) -> dict[str, str]:
    """Shards that would lose samples that may be healthy: shard -> why it is left as it is."""
    left = {}
    for shard in keep:
        if marks[shard] is None and not oddity(site.layout.tar(shard)):
            paths = {row.path for row in site.known.rows if row.shard == shard}
            gone = [p for p in paths if p not in now or now[p].reason in ("missing", "changed")]
            if gone:
                left[shard] = (
                    f"nothing vouches for its samples any more, and {len(gone)} of its "
                    f"{len(paths)} videos are missing or changed, {min(gone)!r} for one"
                )
    return left


def rebuild(site: Site, work: Work, marks: Marks, hold: Hold) -> Outcome:
    """Make the shards, each with what stays of it."""
    request = Request(
        src=str(work.source.root),
        out=site.order.out,
        settings=work.settings,
        resources=site.order.resources,
    )
    with open_workplace(site.order.resources, site.display) as workplace:
        workplace.choose_engine(work.settings, work.source.root, site.layout)
        work = replace(work, versions=workplace.versions())
        return _rebuild(site, request, work, marks, workplace, hold)


def _rebuild(
    site: Site, request: Request, work: Work, marks: Marks, workplace: Workplace, hold: Hold
) -> Outcome:
    compare_versions(site.known.versions, work.versions, request, site.display)
    check_space(request, site.layout, work)
    jobs = planned_shards(site.layout, work)
    site.layout.dataset.unlink(missing_ok=True)
    outcome = run_jobs(request, site.layout, work, jobs, site.display, workplace, hold)
    done = {message.shard for message in outcome.done}
    for job in jobs:
        if job.shard in done:
            kept = work.again.get(job.shard, frozenset())
            _tell_shard(site, job.shard, kept, marks[job.shard])
    return outcome


def _tell_shard(site: Site, shard: str, kept: frozenset[str], before: Mark | None) -> None:
    """Note what came of a shard that was made again."""
    after = sound_mark(unclaimed(site.known), shard)
    assert after is not None
    made = [row for row in after.samples if row.key not in kept]
    site.told.rebuilt[shard] = (len(kept), len(made))
    old = {row.key: row.sha256 for row in before.samples} if before else {}
    site.told.other_bytes += [r.key for r in made if old.get(r.key, r.sha256) != r.sha256]
