"""Processes that end with the one that started them, or when they take too much memory."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait
from pathlib import Path
from typing import NoReturn

EXIT_DEVICE_LOST = 75  # EX_TEMPFAIL of sysexits.h
EXIT_OUT_OF_MEMORY = 76
LOOK_EVERY_S = 0.1
START_S = 60.0
"""A process may at least take so long to get ready."""


def end_with_parent() -> None:
    """Let this process, which multiprocessing started, end as soon as its parent has."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def exit_at_once(code: int, why: str) -> NoReturn:
    """End this process without clearing up: other threads may be stuck."""
    print(why, file=sys.stderr, flush=True)  # noqa: T201
    os._exit(code)


def watch_memory(limit_bytes: int) -> None:
    """End this process, with EXIT_OUT_OF_MEMORY, when it holds more than this.

    On systems without /proc nothing is watched. Should the system itself run out of memory first,
    it ends this process before others.
    """
    if not _STATM.exists():
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    threading.Thread(target=_end_beyond, args=(limit_bytes,), daemon=True).start()


_STATM = Path("/proc/self/statm")


def resident_bytes() -> int:
    """Memory that this process holds."""
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _end_beyond(limit_bytes: int) -> None:
    while resident_bytes() <= limit_bytes:
        time.sleep(LOOK_EVERY_S)
    os._exit(EXIT_OUT_OF_MEMORY)


def machine_bytes() -> int:
    """Memory of this machine, or what its control group may take of it."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            limits.append(int((Path("/sys/fs/cgroup") / name).read_text()))
    return min(limits)


def how_it_ended(exit_code: int | None) -> str:
    """In words, from what multiprocessing says."""
    if exit_code == EXIT_OUT_OF_MEMORY:
        return "ended as it took more memory than it may"
    if exit_code is not None and exit_code < 0:
        return f"ended by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code}"


def usable_cores() -> int:
    """Cores of this machine that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def process_pool(n_workers: int, memory_bytes: int = 0) -> Iterator[ProcessPoolExecutor]:
    """A pool of fresh processes, which end when the context is left, whatever they do.

    Each may hold `memory_bytes` (0: as much as there is). Without the initializer they would
    outlive a parent that was killed.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        n_workers, mp_context=context, initializer=_in_pool, initargs=(memory_bytes,)
    )
    try:
        yield pool
    finally:
        kill_pool(pool)  # one may be stuck or stopped, and would be waited for
        pool.shutdown(cancel_futures=True)


def _in_pool(memory_bytes: int) -> None:
    end_with_parent()
    if memory_bytes:
        watch_memory(memory_bytes)


def kill_children() -> None:
    """End all processes that this one has started with multiprocessing and that are left.

    An interrupt may come before anybody knows of them, and Python waits for them at its end.
    """
    for process in multiprocessing.active_children():
        process.kill()


def kill_pool(pool: ProcessPoolExecutor) -> None:
    """End its processes at once; what they were on ends with BrokenProcessPool."""
    for process in list((pool._processes or {}).values()):
        process.kill()
