"""Clips that a worker died on, made one by one in a process of their own, which they may kill."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from flowprep.errors import ClipError, DeviceLost, Reason, portable
from flowprep.processes import (
    EXIT_DEVICE_LOST,
    EXIT_OUT_OF_MEMORY,
    end_with_parent,
    exit_at_once,
    how_it_ended,
    watch_memory,
)
from flowprep.run.encode import Encoded
from flowprep.run.job import MakeClip, ShardJob
from flowprep.run.making import Maker, make_tools
from flowprep.run.overlap import StageClock
from flowprep.run.reporting import Progress, Reporter
from flowprep.run.schedule import START_S, WorkerSpec
from flowprep.run.stages import Broken, ClipTask

MAX_TRIES = 3
"""How often a clip is tried when what ended its process need not be the clip's fault."""
PERHAPS_OTHERS: dict[int, tuple[Reason, str]] = {
    -signal.SIGKILL: ("out-of-memory", "the system killed its process, as when memory runs out"),
    EXIT_DEVICE_LOST: ("crashed", "the GPU failed under it"),
}
LOOK_EVERY_S = 0.2
ENDING_S = 1.0


Answer = Encoded | Broken | Exception


@contextlib.contextmanager
def apart(spec: WorkerSpec, maker: Maker) -> Iterator[MakeClip]:
    """Make clips in a process of their own, with the memory and patience of `spec`."""
    folder = maker.scratch / "apart"
    folder.mkdir()
    cell = Cell(spec, maker, folder)
    try:
        yield cell.make
    finally:
        cell.end()


class Cell:
    """The process, started when a clip needs one, and again after a clip has ended it."""

    def __init__(self, spec: WorkerSpec, maker: Maker, folder: Path) -> None:
        self._spec, self._maker, self._folder = spec, maker, folder
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None

    def make(self, task: ClipTask) -> Encoded | Broken:
        """The clip, or what its process died of. Raises what the process raises."""
        code = 0
        for _ in range(MAX_TRIES):
            answer = self._try(task)
            if isinstance(answer, Exception):
                raise answer
            if not isinstance(answer, int):
                return answer
            code = answer
        reason, message = PERHAPS_OTHERS[code]
        return _broken(task, reason, f"{message}, {MAX_TRIES} times")

    def _try(self, task: ClipTask) -> Answer | int:
        """The exit code when the process has ended, perhaps by no fault of the clip."""
        pipe = self._started()
        try:
            pipe.send(task)
            return self._outcome(task, pipe)
        except (EOFError, OSError):
            code = self.end()
            return code if code in PERHAPS_OTHERS else _died(task, code)

    def _started(self) -> Connection:
        if self._pipe is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            job = replace(self._maker.job, tasks=[], keep=[], suspects=frozenset())
            arguments = (self._spec, job, self._folder, theirs)
            self._process = context.Process(target=_serve, args=arguments)
            self._process.start()
            theirs.close()
        return self._pipe

    def _outcome(self, task: ClipTask, pipe: Connection) -> Answer:
        """Wait for it. Raises EOFError when the process ends instead."""
        heard, patience_s = time.monotonic(), max(self._spec.stall_s, START_S)
        while time.monotonic() - heard < patience_s:
            self._maker.reporter.add()  # this worker is alive, whatever the other process does
            if not pipe.poll(LOOK_EVERY_S):
                continue
            message: Answer | Progress = pipe.recv()
            if not isinstance(message, Progress):
                return message
            self._maker.reporter.pass_on(message)
            heard, patience_s = time.monotonic(), self._spec.stall_s
        self.end()
        return _broken(task, "timeout", f"no progress for {self._spec.stall_s:g} s")

    def end(self) -> int:
        """End the process if there is one; returns its exit code."""
        if self._process is None or self._pipe is None:
            return 0
        self._pipe.close()
        self._process.join(ENDING_S)
        self._process.kill()
        self._process.join()
        code = self._process.exitcode or 0
        self._process = self._pipe = None
        return code


def _died(task: ClipTask, code: int) -> Broken:
    reason: Reason = "out-of-memory" if code == EXIT_OUT_OF_MEMORY else "crashed"
    return _broken(task, reason, f"its process {how_it_ended(code)}")


def _broken(task: ClipTask, reason: Reason, message: str) -> Broken:
    return Broken(task=task, stage="process", error=ClipError(reason, message))


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
    options: dict[str, Any] = spec.engine_options
    tools = make_tools(
        spec.settings, device=spec.device, threads=spec.threads, engine_options=options
    )
    clock = StageClock()
    reporter = Reporter(job.shard, clock, pipe.send)
    maker = Maker(job=job, tools=tools, scratch=folder, clock=clock, reporter=reporter)
    while True:
        task: ClipTask = pipe.recv()
        for outcome in maker.make([task]):
            reporter.flush()
            pipe.send(outcome)
