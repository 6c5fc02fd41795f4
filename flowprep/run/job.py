"""One shard, from its clips to a committed tar; the same bytes whoever calls it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NoReturn

from flowprep.config import Settings
from flowprep.records import Failure
from flowprep.run.encode import Encoded
from flowprep.run.making import Maker, Tools
from flowprep.run.overlap import StageClock
from flowprep.run.reporting import Report, Reporter
from flowprep.run.stages import Broken, ClipTask
from flowprep.shard.commit import commit, finish_swap
from flowprep.shard.index import Mark, dali_idx, load_mark
from flowprep.shard.layout import Layout
from flowprep.shard.schema import SampleInfo, SampleRow
from flowprep.shard.writer import Placed, ShardWriter
from flowprep.storage import Place, scratch_folder, sha256_file, sweep_scratch


@dataclass(frozen=True, kw_only=True)
class ShardJob:
    """Everything a worker needs to make one shard."""

    shard: str
    root: Place
    out: Place
    settings: Settings
    tasks: list[ClipTask]
    class_index: dict[str, int]
    versions: dict[str, str]
    keep: frozenset[str] = frozenset()  # keys of samples of the old tar to copy
    labels: dict[str, str] = field(default_factory=dict)  # key -> label, if not the task's
    failed: list[Failure] = field(default_factory=list)  # clips that are not tried again
    suspects: frozenset[str] = frozenset()  # keys of clips that a worker died on

    @property
    def n_frames(self) -> int:
        return sum(task.clip.n_frames for task in self.tasks)


@dataclass(frozen=True, kw_only=True)
class PlannedShard:
    """A shard to make: what a run needs to know of all of them at a time.

    `build` gives the job, which holds the frame times of every clip, when a worker takes it.
    """

    shard: str
    n_frames: int
    n_clips: int
    n_pairs: int  # of the clips that are not copied, and not left as failed
    build: Callable[[], ShardJob]


MakeClip = Callable[[ClipTask], Encoded | Broken]
Isolate = Callable[[Maker], AbstractContextManager[MakeClip]]
"""Opens a place where clips are made that may end the process they are in."""


def nowhere(maker: Maker) -> NoReturn:
    """For jobs that have no suspects."""
    raise NotImplementedError(f"{maker.job.shard} has suspects, and no place to make them")


def run_shard(job: ShardJob, tools: Tools, report: Report, isolate: Isolate = nowhere) -> Mark:
    """Make, publish and mark one shard. Raises OSError when the disk does not take it."""
    layout = Layout(job.out)
    clock = StageClock()
    reporter = Reporter(job.shard, clock, report)
    finish_swap(layout, job.shard)  # of a worker that was killed in it
    if layout.is_remote:
        sweep_scratch()
    with scratch_folder(layout.scratch, job.shard) as scratch:
        maker = Maker(job=job, tools=tools, scratch=scratch, clock=clock, reporter=reporter)
        tar = scratch / "shard.tar"
        results: list[SampleRow | Failure] = []
        with ShardWriter(tar) as writer:
            for result in _results(maker, writer, isolate):
                results.append(result)
                reporter.end(result.key, clips=1, failures=int(isinstance(result, Failure)))
        with clock.stage("tar"):
            mark = _mark(job, tar, results)
            commit(layout, mark, tar, scratch, reporter.add)
    reporter.flush()
    return mark


def _results(maker: Maker, writer: ShardWriter, isolate: Isolate) -> Iterator[SampleRow | Failure]:
    """A row or a Failure for each clip of the job, in order, while the tar is written."""
    job = maker.job
    mark = Layout(job.out).mark(job.shard)  # where they lie now: an earlier try may have ended
    kept = {r.key: r for r in load_mark(mark).samples if r.key in job.keep} if job.keep else {}
    failed = {failure.key: failure for failure in job.failed}
    todo = [task for task in job.tasks if task.clip.key not in kept.keys() | failed.keys()]
    made = _outcomes(maker, todo, isolate)
    for task in job.tasks:
        if task.clip.key in kept:
            yield _kept(job, writer, kept[task.clip.key])
            continue
        if task.clip.key in failed:
            yield failed[task.clip.key]
            continue
        outcome = next(made)
        if isinstance(outcome, Broken):
            yield _failure(outcome)
            continue
        with maker.clock.stage("tar"):
            placed = writer.add(outcome.info.key, outcome.members)
        yield _indexed(job, sample_row(outcome.info, placed))


def _outcomes(maker: Maker, tasks: list[ClipTask], isolate: Isolate) -> Iterator[Encoded | Broken]:
    """Suspects are made apart, all others by `maker`."""
    suspects = maker.job.suspects
    made = maker.make([task for task in tasks if task.clip.key not in suspects])
    with ExitStack() as stack:
        make_apart: MakeClip | None = None
        for task in tasks:
            if task.clip.key not in suspects:
                yield next(made)
                continue
            make_apart = make_apart or stack.enter_context(isolate(maker))
            yield make_apart(task)


def _failure(broken: Broken) -> Failure:
    return Failure(
        key=broken.task.clip.key,
        path=broken.task.clip.path,
        stage=broken.stage,
        reason=broken.error.reason,
        message=broken.error.message,
        retriable=broken.error.retriable,
    )


def _kept(job: ShardJob, writer: ShardWriter, row: SampleRow) -> SampleRow:
    """A healthy sample of the shard as it was, byte for byte."""
    copy = copy_sample(writer, Layout(job.out).tar(job.shard), row)
    if copy.sha256 != row.sha256:
        raise OSError(f"{job.shard}.tar: sample {row.key} is damaged; flowprep verify says more")
    return copy


def copy_sample(writer: ShardWriter, tar: Place, row: SampleRow) -> SampleRow:
    """Append a sample of another tar: its row there, with the hash of the bytes that were found."""
    suffixes = ("cls", "flow", "json", "rgb")
    places = {s: (getattr(row, f"{s}_offset"), getattr(row, f"{s}_size")) for s in suffixes}
    old = Placed(row.sample_offset, row.sample_size, row.sha256, places)
    new = writer.copy(tar, old)
    moved: dict[str, Any] = {
        f"{s}_offset": offset if places[s][0] >= 0 else -1 for s, (offset, _) in new.members.items()
    }
    return replace(row, sample_offset=new.offset, sha256=new.sha256, **moved)


def _indexed(job: ShardJob, row: SampleRow) -> SampleRow:
    label = job.labels.get(row.key, row.label)
    return replace(row, label=label, label_index=job.class_index.get(label, -1))


def sample_row(info: SampleInfo, placed: Placed) -> SampleRow:
    """The index row of a sample just written."""
    missing = (-1, 0)
    kinds = {"cls": "cls", "flow": info.flow_member, "json": "json", "rgb": info.rgb_member}
    places = {kind: placed.members.get(suffix, missing) for kind, suffix in kinds.items()}
    columns: dict[str, Any] = {
        **{f.name: getattr(info, f.name) for f in fields(SampleRow) if hasattr(info, f.name)},
        **{f"{kind}_offset": offset for kind, (offset, _) in places.items()},
        **{f"{kind}_size": size for kind, (_, size) in places.items()},
    }
    return SampleRow(
        **columns,
        tar_label=info.label,
        tar_label_index=info.label_index,
        start_s=info.pts_s[0],
        end_s=info.pts_s[-1],
        sample_offset=placed.offset,
        sample_size=placed.size,
        sha256=placed.sha256,
    )


def _mark(job: ShardJob, tar: Path, results: list[SampleRow | Failure]) -> Mark:
    samples = [r for r in results if isinstance(r, SampleRow)]
    return Mark(
        shard=job.shard,
        fingerprint=job.settings.fingerprint(),
        tar_bytes=tar.stat().st_size if samples else 0,
        tar_sha256=sha256_file(tar) if samples else "",
        idx_sha256=hashlib.sha256(dali_idx(samples)).hexdigest(),
        samples=samples,
        failures=[r for r in results if isinstance(r, Failure)],
        versions=job.versions,
    )
