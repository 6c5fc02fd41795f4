"""Shards of known cost, and what stands in for making them: it waits, and computes nothing."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np

from flowprep.config import Settings
from flowprep.records import Clip
from flowprep.run.job import Isolate, PlannedShard, ShardJob, nowhere
from flowprep.run.making import Tools
from flowprep.run.overlap import StageClock
from flowprep.run.reporting import Report, Reporter
from flowprep.run.stages import ClipTask
from flowprep.shard.commit import commit
from flowprep.shard.index import Mark
from flowprep.shard.layout import Layout
from flowprep.storage import scratch_folder

CONTENT_SIGMA = 0.3
"""Of the logarithm of what a pair of a shard costs: the scheduler does not know it."""
CLIP_FRAMES = 1500
"""Pieces of at most 60 s at 25 frames a second, as an extraction makes them."""
CHUNK_S = 0.25
"""So often a real job gives a sign of life, about."""


def draw_frames(n_shards: int, seed: int) -> list[int]:
    """Frames of each shard: a long tail to the right, the longest some 13 times the median."""
    lengths = np.random.default_rng(seed).lognormal(np.log(6000), 0.8, n_shards)
    return [int(n) for n in np.clip(lengths, 100, 80_000)]


def plan(frames: Iterable[int], out: Path, clip_frames: int = CLIP_FRAMES) -> list[PlannedShard]:
    """Shards of so many frames, in clips."""
    return [_planned(f"train-{i:06d}", n, out, clip_frames) for i, n in enumerate(frames)]


def _planned(shard: str, n_frames: int, out: Path, clip_frames: int) -> PlannedShard:
    starts = range(0, n_frames, clip_frames)
    lengths = [min(clip_frames, n_frames - start) for start in starts]
    return PlannedShard(
        shard=shard,
        n_frames=n_frames,
        n_clips=len(lengths),
        n_pairs=n_frames - len(lengths),
        build=partial(_job, shard, lengths, out),
    )


def _job(shard: str, lengths: list[int], out: Path) -> ShardJob:
    return ShardJob(
        shard=shard,
        root=Path("src"),
        out=out,
        settings=Settings(engine="constant", labels="none"),
        tasks=[_task(f"{shard}-{i:04d}", n) for i, n in enumerate(lengths)],
        class_index={},
        versions={},
    )


def _task(key: str, n_frames: int) -> ClipTask:
    clip = Clip(
        key=key,
        path=f"{key}.mp4",
        number=0,
        label="",
        split="train",
        source_index=np.arange(n_frames),
    )
    return ClipTask(clip=clip, media=None, size_bytes=0, mtime_ns=0)


def content(shard: str) -> float:
    """What a pair of this shard costs, relative to the mean of all shards."""
    generator = np.random.default_rng(zlib.crc32(shard.encode()))
    return float(generator.lognormal(-(CONTENT_SIGMA**2) / 2, CONTENT_SIGMA))


def cost_s(shard: PlannedShard | ShardJob, pair_s: float) -> float:
    return shard.n_frames * pair_s * content(shard.shard)


def wait_shard(
    job: ShardJob, tools: Tools, report: Report, isolate: Isolate = nowhere, *, pair_s: float
) -> Mark:
    """In the place of `run_shard`: the same messages and a real commit, of a shard without samples.

    What a message or the commit takes comes on top of the cost.
    """
    reporter, layout = Reporter(job.shard, StageClock(), report), Layout(job.out)
    for task in reporter.begin(job.tasks):
        clip_s = task.clip.n_frames * pair_s * content(job.shard)
        n_chunks = max(1, round(clip_s / CHUNK_S))
        for _ in range(n_chunks):
            time.sleep(clip_s / n_chunks)
            reporter.add()
        reporter.end(task.clip.key, clips=1, flows=task.clip.n_frames - 1)
    mark = Mark(
        shard=job.shard,
        fingerprint=job.settings.fingerprint(),
        tar_bytes=0,
        tar_sha256="",
        idx_sha256="",
        samples=[],
        failures=[],
        versions={},
    )
    with scratch_folder(layout.scratch, job.shard) as scratch:
        commit(layout, mark, scratch / "shard.tar", scratch)
    reporter.flush()
    return mark
