"""Chunks of several clips go to an engine in batches; what comes out is chunk by chunk."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowprep.config import Settings
from flowprep.errors import ClipError, DeviceLost, FlowprepError
from flowprep.flow.pairwise import PairEngine
from flowprep.processes import EXIT_DEVICE_LOST
from flowprep.quantize import Quantizer, make_quantizer
from flowprep.records import F32, U8, Clip, CodedFlow, FlowField, Frames
from flowprep.run.encode import FlowStats
from flowprep.run.executors import Resources, _specs
from flowprep.run.job import ShardJob
from flowprep.run.overlap import StageClock
from flowprep.run.pool import WorkerSpec
from flowprep.run.stages import Broken, Chunk, ClipTask, Event, flow_stage
from flowprep.run.worker import Worker

BAD, NOT_FINITE = 255, 254
"""Frames of these gray values make an engine fail."""
QUANTIZER = make_quantizer("int16", 20)


class Counting(PairEngine):
    """Flow = difference of the frames' first pixels; notes what it was given."""

    name = build = "counting"

    def __init__(self, n_wanted: int) -> None:
        self.params: dict[str, Any] = {}
        self.n_wanted, self.calls = n_wanted, list[list[int]]()

    def batch_pairs(self, size_HW: tuple[int, int]) -> int:
        return self.n_wanted

    def compute_batch(self, clips: Any) -> list[F32]:
        self.calls.append([len(clip) - 1 for clip in clips])
        return super().compute_batch(clips)

    def _flows(self, gray_THW: U8) -> Iterator[np.ndarray]:
        if (gray_THW == BAD).any():
            raise RuntimeError("cannot do this one")
        for before, after in pairwise(gray_THW):
            step = float(after[0, 0]) - float(before[0, 0])
            yield np.full((2, *before.shape), step, np.float32)


class CountingCodes(Counting):
    """Hands out codes only. After a frame of the value NOT_FINITE, flow is no number."""

    def compute_batch(self, clips: Any) -> list[F32]:
        raise AssertionError("flow as numbers is not asked for")

    def compute_codes_batch(self, clips: Any, quantizer: Quantizer) -> list[CodedFlow]:
        self.calls.append([len(clip) - 1 for clip in clips])
        return [self._coded(clip, quantizer.coded(self.compute(clip))) for clip in clips]

    def _coded(self, clip: U8, coded: CodedFlow) -> CodedFlow:
        is_spoiled = clip[:-1, 0, 0] == NOT_FINITE
        return replace(coded, sum_px=np.where(is_spoiled, np.nan, coded.sum_px))


def task(key: str) -> ClipTask:
    clip = Clip.__new__(Clip)
    object.__setattr__(clip, "key", key)
    return ClipTask(clip=clip, media=None, size_bytes=0, mtime_ns=0)


def chunks(one: ClipTask, *parts: list[int], side: int = 4) -> Iterator[Chunk]:
    for i, values in enumerate(parts):
        gray = np.repeat(np.array(values, np.uint8), side * side).reshape(-1, side, side)
        frames = Frames.__new__(Frames)
        yield Chunk(
            task=one, frames=frames, gray=gray, is_first=i == 0, is_last=i + 1 == len(parts)
        )


def run(engine: Counting, *events: Event) -> list[tuple[str, Any]]:
    """(key, flow of each pair) of each chunk, or (key, stage, reason)."""
    out: list[Any] = []
    for event in flow_stage(events, engine, QUANTIZER, StageClock()):
        if isinstance(event, Broken):
            out.append((event.task.clip.key, event.stage, event.error.reason))
        else:
            out.append((event.task.clip.key, uv_of(event.flow)[:, 0, 0, 0].tolist()))
    return out


def uv_of(flow: FlowField | CodedFlow | None) -> F32:
    assert flow is not None
    return flow.uv if isinstance(flow, FlowField) else QUANTIZER.decode(flow.codes)


TWO_CLIPS = [([1, 2], [4, 7], [11]), ([50, 60, 80], [110])]
FLOWS = [("a", [1]), ("a", [2, 3]), ("a", [4]), ("b", [10, 20]), ("b", [30])]


@pytest.mark.parametrize(
    ("n_wanted", "calls"),
    [
        (1, [[1], [2], [1], [2], [1]]),
        (3, [[1, 2], [1, 2], [1]]),
        (100, [[1, 2, 1, 2, 1]]),
    ],
)
def test_batches_cross_chunks_and_clips_and_change_nothing(
    n_wanted: int, calls: list[list[int]]
) -> None:
    engine = Counting(n_wanted)
    a, b = (list(chunks(task(key), *parts)) for key, parts in zip("ab", TWO_CLIPS, strict=True))
    assert run(engine, *a, *b) == FLOWS
    assert engine.calls == calls


def test_frames_of_another_size_end_a_batch() -> None:
    engine = Counting(100)
    a, b = chunks(task("a"), [1, 2, 3]), chunks(task("b"), [5, 9], side=6)
    assert run(engine, *a, *b) == [("a", [1, 1]), ("b", [4])]
    assert engine.calls == [[2], [1]]


def test_pairs_of_identical_frames_are_not_in_the_batch() -> None:
    engine = Counting(100)
    a, b = chunks(task("a"), [1, 1, 3], [3, 4]), chunks(task("b"), [9, 9])
    assert run(engine, *a, *b) == [("a", [0, 2]), ("a", [0, 1]), ("b", [0])]
    assert engine.calls == [[1, 1]]


@pytest.mark.parametrize("n_wanted", [1, 4, 100])
def test_a_clip_that_the_engine_fails_on_costs_no_other(n_wanted: int) -> None:
    events = [
        *chunks(task("a"), [1, 2], [3]),
        *chunks(task("b"), [5, BAD], [6], [7]),
        *chunks(task("c"), [1, 9]),
    ]
    told = run(Counting(n_wanted), *events)
    assert told == [("a", [1]), ("a", [1]), ("b", "flow", "flow-error"), ("c", [8])]


def test_a_clip_that_breaks_while_its_chunks_wait_comes_after_them() -> None:
    one = task("a")
    (first, _) = chunks(one, [1, 2], [3])
    broken = Broken(task=one, stage="decode", error=ClipError("decode-error", "torn"))
    told = run(Counting(100), first, broken, *chunks(task("b"), [1, 3]))
    assert told == [("a", [1]), ("a", "decode", "decode-error"), ("b", [2])]


class Forgetful(Counting):
    def compute(self, gray_THW: U8) -> F32:
        flow = super().compute(gray_THW)
        return flow[1:] if (gray_THW == BAD).any() else flow

    def _flows(self, gray_THW: U8) -> Iterator[np.ndarray]:
        return super()._flows(np.minimum(gray_THW, BAD - 1))


@pytest.mark.parametrize("n_wanted", [1, 100])
def test_an_engine_that_gives_too_few_pairs_is_at_fault(n_wanted: int) -> None:
    events = [*chunks(task("a"), [1, 2, BAD], [3]), *chunks(task("b"), [1, 9])]
    told = run(Forgetful(n_wanted), *events)
    assert told == [("a", "flow", "flow-error"), ("b", [8])]


# --- engines that give codes ---


@pytest.mark.parametrize("n_wanted", [1, 3, 100])
def test_codes_come_chunk_by_chunk_too(n_wanted: int) -> None:
    a, b = (list(chunks(task(key), *parts)) for key, parts in zip("ab", TWO_CLIPS, strict=True))
    assert run(CountingCodes(n_wanted), *a, *b) == FLOWS


@pytest.mark.parametrize("n_wanted", [1, 4, 100])
@pytest.mark.parametrize("bad", [BAD, NOT_FINITE])
def test_a_clip_whose_codes_are_no_good_costs_no_other(n_wanted: int, bad: int) -> None:
    events = [
        *chunks(task("a"), [1, 1, 2], [3]),
        *chunks(task("b"), [5, bad, 9], [6], [7]),
        *chunks(task("c"), [1, 9]),
    ]
    told = run(CountingCodes(n_wanted), *events)
    assert told == [("a", [0, 1]), ("a", [1]), ("b", "flow", "flow-error"), ("c", [8])]


def test_totals_of_a_clip_do_not_depend_on_its_chunks() -> None:
    noise = np.random.default_rng(0)
    uv = noise.normal(0, 10 ** noise.uniform(-3, 2, (40, 1, 1, 1)), (40, 2, 9, 11))
    lengths = np.hypot(uv[:, 0], uv[:, 1])
    sums_px = lengths.sum(axis=(1, 2))  # in float64, so that their order matters
    coded = replace(QUANTIZER.coded(uv.astype(np.float32)), sum_px=sums_px)
    got = set()
    for cuts in ([], [1, 2, 3], [17], [5, 5, 30], list(range(1, 40))):
        stats = FlowStats()
        for pairs in np.split(np.arange(40), cuts):
            arrays = (getattr(coded, f.name)[pairs] for f in fields(coded))
            stats.add(CodedFlow(*arrays))
        got.add((stats.n_vectors, stats.sum_px, stats.max_px, stats.n_beyond))
    ((n_vectors, sum_px, max_px, n_beyond),) = got
    assert n_vectors == lengths.size
    assert sum_px == pytest.approx(lengths.sum(), rel=1e-12)
    assert max_px == pytest.approx(lengths.max(), rel=1e-6)
    assert n_beyond == (np.abs(uv).max(axis=1) > QUANTIZER.bound_px).sum()


# --- a device that is lost ---


class Lost(Counting):
    def compute_batch(self, clips: Any) -> list[F32]:
        raise DeviceLost("illegal address")


@pytest.mark.parametrize("n_wanted", [1, 100])
def test_a_lost_device_is_no_fault_of_a_clip(n_wanted: int) -> None:
    with pytest.raises(DeviceLost, match="illegal address"):
        run(Lost(n_wanted), *chunks(task("a"), [1, 2]))


def lose_the_device() -> None:
    worker = Worker(0, WorkerSpec(settings=Settings()))

    def lost() -> Any:
        raise DeviceLost("illegal address")

    worker._made_tools = lost  # type: ignore[method-assign]
    places = {"root": Path("nowhere"), "out": Path("nowhere")}
    job = ShardJob(shard="s", settings=Settings(), tasks=[], class_index={}, versions={}, **places)
    worker.run(job, lambda _: None)
    os._exit(0)


def test_a_worker_ends_with_its_device(capfd: pytest.CaptureFixture[str]) -> None:
    process = multiprocessing.get_context("fork").Process(target=lose_the_device)
    process.start()
    process.join(60)
    assert process.exitcode == EXIT_DEVICE_LOST
    assert "illegal address" in capfd.readouterr().err


# --- workers of a GPU ---


@pytest.mark.parametrize(
    ("cpus", "gpus", "n_workers"), [(2, 1, 2), (16, 1, 8), (64, 1, 8), (32, 8, 16), (12, 2, 6)]
)
def test_a_gpu_gets_a_worker_for_every_two_of_its_cores(
    cpus: int, gpus: int, n_workers: int
) -> None:
    devices: list[int | None] = list(range(gpus))
    specs = _specs(Resources(), Settings(engine="cuda"), 99, cpus, devices)
    assert len(specs) == n_workers
    assert {spec.engine_options["gpu_share"] for spec in specs} == {gpus / n_workers}


def test_gpu_memory_goes_to_the_engine_that_plans_it() -> None:
    resources = Resources(gpu_mem_gib=1.5, workers_per_gpu=3)
    (spec, *_) = _specs(resources, Settings(engine="cuda"), 9, 16, [0])
    assert spec.engine_options == {"gpu_share": 1 / 3, "gpu_bytes": 3 << 29}
    assert _specs(Resources(), Settings(engine="cpu"), 9, 4, [None])[0].engine_options == {}
    with pytest.raises(FlowprepError, match="--gpu-mem is not for engine 'cpu'"):
        _specs(resources, Settings(engine="cpu"), 9, 4, [None])
