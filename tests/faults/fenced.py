"""A process that does jobs one after the other, and may die, hang or run out of memory over one."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What one job may take."""

    wall_s: float
    memory_bytes: int  # writable, beyond what the process has when it is ready


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How a job ended. `ended` is "" where `value` is what it returned."""

    value: Any = None
    ended: str = ""
    cpu_s: float = 0.0
    peak_mib: float = 0.0  # resident memory that the job added


class Fence:
    """Calls `work(job)` in a child process, a new one after each that was lost.

    `work` and jobs must be picklable; `ready()` is called first, to load what is slow.
    """

    def __init__(
        self, work: Callable[[Any], Any], ready: Callable[[], None], limits: Limits
    ) -> None:
        self._work, self._ready, self._limits = work, ready, limits
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    def ask(self, job: Any) -> Answer:
        """The answer; of a child that dies or does not answer in time, how it ended."""
        pipe = self._started()
        pipe.send(job)
        if not pipe.poll(self._limits.wall_s):
            self.close()
            return Answer(ended="hung")
        try:
            answer: Answer = pipe.recv()
        except (EOFError, ConnectionResetError):
            assert self._process is not None
            self._process.join()
            code = self._process.exitcode
            self.close()
            return Answer(ended=f"died with {code}")
        return answer

    def close(self) -> None:
        if self._process is not None and self._pipe is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
        self._process = self._pipe = None

    def __enter__(self) -> Fence:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _started(self) -> Connection:
        if self._pipe is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, far = context.Pipe()
            self._process = context.Process(
                target=_serve, args=(far, self._work, self._ready, self._limits), daemon=True
            )
            self._process.start()
            far.close()
            assert self._pipe.poll(120), "the child process does not start"
            self._pipe.recv()
        return self._pipe


def _serve(
    pipe: Connection, work: Callable[[Any], Any], ready: Callable[[], None], limits: Limits
) -> None:
    ready()
    most = _status_kib("VmData") * 1024 + limits.memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    pipe.send("ready")
    with contextlib.suppress(EOFError):
        while True:
            pipe.send(_answer(work, pipe.recv()))


def _answer(work: Callable[[Any], Any], job: Any) -> Answer:
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before_kib, start_s = _status_kib("VmRSS"), time.process_time()
    value = work(job)
    cpu_s = time.process_time() - start_s
    return Answer(
        value=value, cpu_s=cpu_s, peak_mib=max(0, _status_kib("VmHWM") - before_kib) / 1024
    )


def _status_kib(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])
