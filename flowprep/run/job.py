"""One shard, from its clips to a committed tar; the same bytes whoever calls it."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from flowprep.codec.base import Codec, Kind, get_codec
from flowprep.config import Settings
from flowprep.decode.base import Decoder, get_decoder
from flowprep.flow.base import Engine, get_engine, registry
from flowprep.quantize import Quantizer, make_quantizer
from flowprep.records import Failure
from flowprep.run.encode import Encoded, SampleBuilder, encode_stage
from flowprep.run.overlap import Background, StageClock
from flowprep.run.stages import Broken, Chunk, ClipTask, Event, decode_stage, flow_stage
from flowprep.shard.commit import commit, finish_swap
from flowprep.shard.index import Mark, dali_idx, load_mark
from flowprep.shard.layout import Layout
from flowprep.shard.schema import SampleInfo, SampleRow
from flowprep.shard.writer import Placed, ShardWriter
from flowprep.storage import scratch_folder, sha256_file

QUEUE_DEPTH = 2
GPU_QUEUE_DEPTH = 32  # chunks: decoding goes on while a batch is on the device
REPORT_EVERY_S = 0.5


@dataclass(frozen=True, kw_only=True)
class ShardJob:
    """Everything a worker needs to make one shard."""

    shard: str
    root: Path
    out: Path
    settings: Settings
    tasks: list[ClipTask]
    class_index: dict[str, int]
    versions: dict[str, str]
    keep: list[SampleRow] = field(default_factory=list)  # samples of the old tar to copy
    failed: list[Failure] = field(default_factory=list)  # clips that are not tried again

    @property
    def n_frames(self) -> int:
        return sum(task.clip.n_frames for task in self.tasks)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a job has done since its last report."""

    shard: str
    counts: dict[str, int] = field(default_factory=dict)  # clips, failures, flows, identical
    cpu_s: dict[str, float] = field(default_factory=dict)  # per stage
    wall_s: dict[str, float] = field(default_factory=dict)


Report = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True)
class Tools:
    """The swappable parts, made once per worker: engines keep work space and compiled code."""

    decoder: Decoder
    engine: Engine
    rgb_codec: Codec
    flow_codec: Codec
    quantizer: Quantizer


def make_tools(
    settings: Settings,
    *,
    device: int | None = None,
    threads: int = 1,
    engine_options: dict[str, Any] | None = None,
) -> Tools:
    """The parts `settings` names. Raises FlowprepError when one is not there."""
    quantizer = make_quantizer(settings.flow_map, settings.bound_px)
    flow_kind: Kind = "flow16" if quantizer.highest > 255 else "flow8"
    options = {**settings.engine_params, **(engine_options or {})}
    engine = get_engine(settings.engine, device=device, threads=threads, **options)
    return Tools(
        decoder=get_decoder(threads=threads),
        engine=engine,
        rgb_codec=get_codec(settings.rgb_codec, ["rgb"]),
        flow_codec=get_codec(settings.flow_codec, [flow_kind]),
        quantizer=quantizer,
    )


class Reporter:
    """Adds counts up and sends them on now and then, with the stage times."""

    def __init__(self, shard: str, clock: StageClock, report: Report) -> None:
        self._shard, self._clock, self._report = shard, clock, report
        self._counts: Counter[str] = Counter()
        self._sent = time.monotonic()

    def add(self, **counts: int) -> None:
        self._counts.update(counts)
        if time.monotonic() - self._sent > REPORT_EVERY_S:
            self.flush()

    def flush(self) -> None:
        cpu_s, wall_s = self._clock.take()
        counts = dict(self._counts)
        self._report(Progress(shard=self._shard, counts=counts, cpu_s=cpu_s, wall_s=wall_s))
        self._counts.clear()
        self._sent = time.monotonic()


def run_shard(job: ShardJob, tools: Tools, report: Report) -> Mark:
    """Make, publish and mark one shard. Raises OSError when the disk does not take it."""
    layout = Layout(job.out)
    clock = StageClock()
    reporter = Reporter(job.shard, clock, report)
    finish_swap(layout, job.shard)  # of a worker that was killed in it
    with scratch_folder(layout.scratch, job.shard) as scratch:
        tar = scratch / "shard.tar"
        results: list[SampleRow | Failure] = []
        with ShardWriter(tar) as writer:
            for result in _results(job, tools, writer, scratch, clock, reporter):
                results.append(result)
                reporter.add(clips=1, failures=int(isinstance(result, Failure)))
        with clock.stage("tar"):
            mark = _mark(job, tar, results)
            commit(layout, mark, tar, scratch)
    reporter.flush()
    return mark


def _results(
    job: ShardJob,
    tools: Tools,
    writer: ShardWriter,
    scratch: Path,
    clock: StageClock,
    reporter: Reporter,
) -> Iterator[SampleRow | Failure]:
    """A row or a Failure for each clip of the job, in order, while the tar is written."""
    mark = Layout(job.out).mark(job.shard)  # where they lie now: an earlier try may have ended
    wanted = {row.key for row in job.keep}
    kept = {r.key: r for r in load_mark(mark).samples if r.key in wanted} if wanted else {}
    failed = {failure.key: failure for failure in job.failed}
    todo = [task for task in job.tasks if task.clip.key not in kept.keys() | failed.keys()]
    made = _made(job, tools, todo, scratch, clock, reporter)
    for task in job.tasks:
        if task.clip.key in kept:
            yield _copied(job, writer, kept[task.clip.key])
            continue
        if task.clip.key in failed:
            yield failed[task.clip.key]
            continue
        outcome = next(made)
        if isinstance(outcome, Broken):
            yield _failure(outcome)
            continue
        with clock.stage("tar"):
            placed = writer.add(outcome.info.key, outcome.members)
        yield sample_row(outcome.info, placed)


def _made(
    job: ShardJob,
    tools: Tools,
    tasks: list[ClipTask],
    scratch: Path,
    clock: StageClock,
    reporter: Reporter,
) -> Iterator[Encoded | Broken]:
    """Decoding, flow and encoding of the tasks, each in a thread of its own."""
    depth = GPU_QUEUE_DEPTH if registry()[tools.engine.name].uses_gpu else QUEUE_DEPTH
    decoded = Background(decode_stage(tasks, job.root, job.settings, tools.decoder, clock), depth)
    flowed = Background(flow_stage(decoded, tools.engine, clock), depth)
    return encode_stage(
        _counted(flowed, reporter),
        lambda first: SampleBuilder(job, tools, first, scratch),
        clock,
    )


def _counted(events: Iterable[Event], reporter: Reporter) -> Iterator[Event]:
    for event in events:
        if isinstance(event, Chunk) and event.flow is not None:
            reporter.add(flows=len(event.flow) - event.identical, identical=event.identical)
        yield event


def _failure(broken: Broken) -> Failure:
    return Failure(
        key=broken.task.clip.key,
        path=broken.task.clip.path,
        stage=broken.stage,
        reason=broken.error.reason,
        message=broken.error.message,
        retriable=broken.error.retriable,
    )


def _copied(job: ShardJob, writer: ShardWriter, row: SampleRow) -> SampleRow:
    """A healthy sample of the shard as it was, byte for byte."""
    suffixes = ("cls", "flow", "json", "rgb")
    places = {s: (getattr(row, f"{s}_offset"), getattr(row, f"{s}_size")) for s in suffixes}
    old = Placed(row.sample_offset, row.sample_size, row.sha256, places)
    new = writer.copy(Layout(job.out).tar(job.shard), old)
    if new.sha256 != row.sha256:
        raise OSError(f"{job.shard}.tar: sample {row.key} is damaged; flowprep verify says more")
    moved: dict[str, Any] = {
        f"{s}_offset": offset if places[s][0] >= 0 else -1 for s, (offset, _) in new.members.items()
    }
    return replace(row, sample_offset=new.offset, **moved)


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
