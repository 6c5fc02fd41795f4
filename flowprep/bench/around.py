"""What a frame costs around its flow: decoded, resized, quantised, encoded and stored."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flowprep.clips import clips_of
from flowprep.config import Settings
from flowprep.decode.base import get_decoder
from flowprep.records import F32, U8, Video
from flowprep.run.job import ShardJob, run_shard
from flowprep.run.making import make_tools
from flowprep.run.reporting import Progress
from flowprep.run.stages import ClipTask

ROUNDS = 3
STAGES = ("decode", "resize", "quantize", "encode rgb", "encode flow", "tar")


@dataclass(frozen=True, kw_only=True)
class Around:
    """CPU seconds of one core for each frame: all but the engine, and the stages of that."""

    frame_s: float
    stages_s: dict[str, float]


class Replay:
    """An engine that gives flow it was made with, float32 [T-1, 2, H, W], in that order."""

    name, build = "constant", "replay"
    params: Mapping[str, Any] = {}

    def __init__(self, flow_T2HW: F32) -> None:
        self._flow_T2HW, self._given = flow_T2HW, 0

    def compute(self, gray_THW: U8) -> F32:
        start, self._given = self._given, self._given + len(gray_THW) - 1
        return self._flow_T2HW[start : self._given]

    def compute_batch(self, clips: Sequence[U8]) -> list[F32]:
        return [self.compute(gray_THW) for gray_THW in clips]

    def batch_pairs(self, size_HW: tuple[int, int]) -> int:
        return 1


def measure_around(video: Path, flow_T2HW: F32 | None) -> Around:
    """Make a shard of the video, as a worker of an extraction does: the best of some rounds.

    The flow to store is given; without, it is the same everywhere and costs less to store.
    """
    import cv2

    cv2.setNumThreads(1)
    rounds = [_shard(video, flow_T2HW) for _ in range(ROUNDS)]
    return min(rounds, key=lambda around: around.frame_s)


def _shard(video: Path, flow_T2HW: F32 | None) -> Around:
    settings = Settings(engine="constant", labels="none", short_side=0)
    tools, cpu_s = make_tools(settings), Counter[str]()
    if flow_T2HW is not None:
        tools = replace(tools, engine=Replay(flow_T2HW))

    def report(progress: Progress) -> None:
        cpu_s.update(progress.cpu_s)

    with TemporaryDirectory() as out:
        job = _job(video, Path(out), settings)
        started_s = time.process_time()
        run_shard(job, tools, report)
        seconds = time.process_time() - started_s - cpu_s["flow"]
    stages_s = {stage: cpu_s[stage] / job.n_frames for stage in STAGES}
    return Around(frame_s=seconds / job.n_frames, stages_s=stages_s)


def _job(path: Path, out: Path, settings: Settings) -> ShardJob:
    """All of the video as one shard below `out`."""
    stat, media = path.stat(), get_decoder().probe(str(path))
    size_bytes, mtime_ns = stat.st_size, stat.st_mtime_ns
    video = Video(path=path.name, media=media, size_bytes=size_bytes, mtime_ns=mtime_ns)
    tasks = [
        ClipTask(clip=clip, media=media, size_bytes=size_bytes, mtime_ns=mtime_ns)
        for clip in clips_of(video, settings)
    ]
    (out / "_flowprep" / "shards").mkdir(parents=True)
    return ShardJob(
        shard="train-000000",
        root=path.parent,
        out=out,
        settings=settings,
        tasks=tasks,
        class_index={},
        versions={},
    )
