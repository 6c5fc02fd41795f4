"""Clips that a worker died on, made one by one in a process of their own, which they may kill."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from flowprep.cell import Cell, Death
from flowprep.errors import ClipError, DeviceLost, portable
from flowprep.processes import EXIT_DEVICE_LOST, end_with_parent, exit_at_once, watch_memory
from flowprep.run.encode import Encoded
from flowprep.run.job import MakeClip, ShardJob
from flowprep.run.making import Maker, make_tools
from flowprep.run.overlap import StageClock
from flowprep.run.pool import WorkerSpec
from flowprep.run.reporting import Progress, Reporter
from flowprep.run.stages import Broken, ClipTask


@contextlib.contextmanager
def apart(spec: WorkerSpec, maker: Maker) -> Iterator[MakeClip]:
    """Make clips in a process of their own, with the memory and patience of `spec`."""
    folder = maker.scratch / "apart"
    folder.mkdir()
    job = replace(maker.job, tasks=[], keep=frozenset(), failed=[], suspects=frozenset())
    cell = Cell(_serve, (spec, job, folder), spec.stall_s)

    def is_answer(message: object) -> bool:
        if isinstance(message, Progress):
            maker.reporter.pass_on(message)
        elif message is None:
            maker.reporter.add()  # this worker is alive, whatever the other process does
        return not (message is None or isinstance(message, Progress))

    def make(task: ClipTask) -> Encoded | Broken:
        answer: Encoded | Broken | Death | Exception = cell.ask(task, is_answer)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Death):
            error = ClipError(answer.reason, answer.message)
            return Broken(task=task, stage="process", error=error)
        return answer

    try:
        yield make
    finally:
        cell.end()


def _serve(spec: WorkerSpec, job: ShardJob, folder: Path, pipe: Connection) -> None:
    """Make the clips that come through the pipe until it closes."""
    end_with_parent()
    watch_memory(spec.memory_limit_bytes)
    try:
        _make_each(spec, job, folder, pipe)
    except EOFError:
        return
    except DeviceLost as error:
        exit_at_once(EXIT_DEVICE_LOST, str(error))
    except Exception as error:  # noqa: BLE001 - the worker raises it again
        pipe.send(portable(error))


def _make_each(spec: WorkerSpec, job: ShardJob, folder: Path, pipe: Connection) -> None:
    import cv2

    cv2.setNumThreads(spec.threads)
    tools = make_tools(
        spec.settings,
        device=spec.device,
        threads=spec.threads,
        engine_options=spec.engine_options,
    )
    clock = StageClock()
    reporter = Reporter(job.shard, clock, pipe.send)
    maker = Maker(job=job, tools=tools, scratch=folder, clock=clock, reporter=reporter)
    while True:
        task: ClipTask = pipe.recv()
        for outcome in maker.make([task]):
            reporter.flush()
            pipe.send(outcome)
