"""`flowprep verify --repair`: what is damaged is made again, everything else is left alone.

The order is what makes a kill harmless: marks and tables that can be told from others first, while
dataset.json vouches for these; then dataset.json goes, and shards are swapped in one by one, each
with the mark that vouches for it; the index and dataset.json come last.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from flowprep import manifest
from flowprep.errors import FlowprepError
from flowprep.manifest import Manifest
from flowprep.records import Video
from flowprep.run.held import Hold, held
from flowprep.run.kept import kept_clips
from flowprep.run.machine import installed_versions
from flowprep.run.probing import probe_all
from flowprep.run.progress import Display
from flowprep.run.rebuild import Order, Repaired, Site, kept_samples, rebuild, work_of
from flowprep.run.refresh import refresh
from flowprep.run.removed import kept_videos, known_removed
from flowprep.run.salvage import (
    Marks,
    classes_fit,
    is_vouched,
    load_known,
    restored_classes,
    restored_mark,
    sound_mark,
    unclaimed,
)
from flowprep.run.schedule import Outcome
from flowprep.shard.index import dataset_bytes, gather, load_failures
from flowprep.shard.layout import local_layout_of
from flowprep.sources import Source, place_again, read_source, root_at
from flowprep.storage import Place, oddity


def repair(order: Order, display: Display) -> Repaired:
    """Make what is damaged again.

    Raises FlowprepError when the user must act: the plan or the settings are damaged, something
    else lies where a file must go, the videos are not where they were.
    """
    layout = local_layout_of(order.out, "mended")
    with held(layout, order.out, "verify --repair", display.warn) as hold:
        found = [f for f in order.check() if layout.out / f.file != layout.lock]
        order.show(found)
        told = Repaired(found=found)
        if found:
            known = load_known(layout)
            site = Site(order=order, layout=layout, known=known, display=display, told=told)
            _repair(site, hold)
        return told


def _repair(site: Site, hold: Hold) -> None:
    _refuse_obstacles(site)
    failed_before = _failures_before(site)
    marks = _marks(site)
    _restore_classes(site, marks)
    source = _source(site)
    keep = kept_samples(site, marks)
    outcome = Outcome()
    if keep and (work := work_of(site, source, marks, keep)).todo:
        outcome = rebuild(site, work, marks, hold)
    if outcome.interrupted:
        raise KeyboardInterrupt
    site.told.lost = outcome.lost
    _finish(site, failed_before)


def _refuse_obstacles(site: Site) -> None:
    """Raise FlowprepError when a file must go where a folder, a link or a pipe is."""
    layout = site.layout
    paths = [*layout.tables, layout.dataset]
    for shard in sorted(site.suspects):
        paths += [layout.tar(shard), layout.mark(shard), layout.idx(shard)]
    for path in paths:
        if (odd := oddity(path)) not in ("", "is missing"):
            raise FlowprepError(f"{path} {odd}", "move it away and run the same command again")


def _failures_before(site: Site) -> set[str]:
    """Keys of the clips that had failed, by the table or by the marks."""
    try:
        return {failure.key for _, failure in load_failures(site.layout.failures)}
    except Exception:  # noqa: BLE001 - damaged parquet raises anything
        marks = (sound_mark(site.known, shard) for shard in site.known.planned)
        return {failure.key for mark in marks if mark for failure in mark.failures}


def _marks(site: Site) -> Marks:
    """The mark of each planned shard, restored where it can be; None where nothing is known."""
    known = site.known
    marks: Marks = {shard: sound_mark(known, shard) for shard in known.planned}
    versions = [known.versions, installed_versions()]
    versions += [mark.versions for mark in marks.values() if mark]
    for shard, mark in marks.items():
        restored = None if mark else restored_mark(known, shard, versions)
        if restored:
            site.write(site.layout.mark(shard), restored.to_json())
            marks[shard] = restored
    return marks


def _restore_classes(site: Site, marks: Marks) -> None:
    path, found = site.layout.classes, [mark for mark in marks.values() if mark]
    vouched = is_vouched(path, site.known.files)
    if not vouched and (site.known.files or not classes_fit(site.known, found)):
        site.write(path, restored_classes(site.known, found))


def _source(site: Site) -> Source:
    """The videos of the manifest and where they are; the manifest is made again if it is damaged.

    Raises FlowprepError when it must be and the videos are not there.
    """
    src, path, files = site.order.src, site.layout.manifest, site.known.files
    place = place_again(site.known.recorded, src)
    root = root_at(place)
    try:
        if files and not is_vouched(path, files):
            raise ValueError("not as written")
        return Source(root, manifest.load(path), []) if not oddity(path) else _probed(site, place)
    except FlowprepError:
        raise
    except Exception:  # noqa: BLE001 - damaged parquet raises anything
        return _probed(site, place)


def _probed(site: Site, place: Place) -> Source:
    try:
        settings = site.known.settings
        source = _labelled(site, read_source(str(place), settings.labels, settings.style))
    except FlowprepError as error:
        hint = "say with --src where they are: as it was given to extract"
        what = f"{site.layout.manifest} is damaged, and is made from the videos: {error.message}"
        raise FlowprepError(what, hint) from error

    def probe(videos: list[Video]) -> Iterable[Video]:
        limits, reader = site.order.resources.probe_limits, site.known.settings.decoder
        found = probe_all(source.root, limits, videos, reader)
        return site.display.probing(found, len(videos))

    removed = known_removed(site.layout)
    kept = kept_videos(source.videos, removed)
    videos = refresh(kept, Manifest.of([]), probe, lambda videos: None)
    videos, _ = kept_clips(videos, site.known.settings, removed)
    site.write(site.layout.manifest, manifest.to_bytes(videos))
    if site.known.files and not is_vouched(site.layout.manifest, site.known.files):
        site.display.note("the manifest tells of the videos as they are now: not all are as before")
    return Source(source.root, videos, [])


def _labelled(site: Site, source: Source) -> Source:
    """The videos that annotation files or lists gave a label, as the plan has it: the files are not
    asked for again.
    """
    settings = site.known.settings
    if settings.labels in ("auto", "none") and not settings.style:
        return source
    rows = {row.path: row for row in site.known.rows}
    planned = [(video, rows[video.path]) for video in source.videos if video.path in rows]
    videos = [replace(video, label=row.label, split=row.split) for video, row in planned]
    return replace(source, videos=videos)


def _finish(site: Site, failed_before: set[str]) -> None:
    """The tables of what is there now, and dataset.json when nothing is missing."""
    layout, told, files = site.layout, site.told, site.known.files
    known = unclaimed(site.known)
    found = [sound_mark(known, shard) for shard in site.known.planned]
    marks = sorted((mark for mark in found if mark), key=lambda mark: mark.shard)
    failures = [failure for mark in marks for failure in mark.failures]
    if site.known.n_failures is None or len(failures) > site.known.n_failures:
        told.failures = [f for f in failures if f.key not in failed_before]
    if len(marks) < len(found) or told.lost:
        return
    gathered = gather(marks)
    tables = {layout.index: gathered.index, layout.failures: gathered.failures}
    for path, data in tables.items():
        if told.rebuilt or site.is_found(path) or not is_vouched(path, files):
            site.write(path, data)
    fingerprint = site.known.settings.fingerprint()
    layout.settled.unlink(missing_ok=True)
    site.write(layout.dataset, dataset_bytes(layout, gathered, fingerprint))
