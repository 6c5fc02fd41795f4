"""The heartbeats of a run and of its workers, for `flowprep status`.

Whatever goes wrong with them is told once, and harms nothing.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from flowprep.errors import FlowprepError
from flowprep.run.job import ShardJob
from flowprep.run.reporting import Progress
from flowprep.shard.heartbeat import RunBeat, WorkerBeat
from flowprep.shard.layout import Layout
from flowprep.storage import Place, briefly, each, listed, write_whole

RUN_EVERY_S = 15.0
WORKER_EVERY_S = 60.0
FIRST_S = 3.0
"""A worker's first beat comes then; each pause is three times the one before, up to a minute."""
WINDOW_S = 600.0
LEAVE_S = 10.0
"""A write that hangs is not waited for any longer."""

Tell = Callable[[str], None]


@contextmanager
def beating(layout: Layout, command: str, tell: Tell) -> Iterator[None]:
    """The dataset, which is held, tells of this process; `tell` hears why it does not. What others
    left is removed, and at the end what its workers leave.
    """
    clear(layout)
    with suppress(OSError):  # the first beat tells it
        layout.heartbeats.mkdir()
    pulse = _RunPulse(layout, command, tell)
    pulse.beat()
    thread = threading.Thread(target=pulse.beat_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        pulse.ended.set()
        thread.join(LEAVE_S)
        clear(layout)


def clear(layout: Layout) -> None:
    """Remove the heartbeats that are there, as far as that works."""
    if not layout.is_remote:
        shutil.rmtree(str(layout.heartbeats), ignore_errors=True)
        return
    with suppress(OSError, FlowprepError), briefly():
        for _ in each(_unlink, [layout.heartbeats / name for name in listed(layout.heartbeats)]):
            pass


def _unlink(place: Place) -> None:
    with briefly():
        place.unlink(missing_ok=True)


class _RunPulse:
    def __init__(self, layout: Layout, command: str, tell: Tell) -> None:
        self._layout, self._command, self._tell = layout, command, tell
        self._since_s, self._n_beats = time.monotonic(), 0
        self.ended = threading.Event()

    def beat_on(self) -> None:
        while not self.ended.wait(RUN_EVERY_S):
            self.beat()

    def beat(self) -> None:
        self._n_beats += 1
        beat = RunBeat(
            **_about_us(),
            number=self._n_beats,
            next_s=RUN_EVERY_S,
            age_s=_passed_s(self._since_s),
            command=self._command,
            user=_user(),
        )
        if trouble := _write(self._layout, self._layout.run_beat, beat.to_json()):
            self._tell(trouble)


class WorkerPulse:
    """Writes what a worker does for as long as its process lives.

    What goes wrong goes to the driver with the next progress.
    """

    def __init__(self, layout: Layout, worker: int) -> None:
        self._layout, self._worker = layout, worker
        self._since_s = self._shard_since_s = time.monotonic()
        self._job: ShardJob | None = None
        self._all, self._of_shard = Counter[str](), Counter[str]()
        self._past = deque([(self._since_s, Counter[str]())])  # totals at some times in the window
        self._trouble, self._n_beats = "", 0
        self._lock = threading.Lock()
        threading.Thread(target=self._beat_on, daemon=True).start()

    def begin(self, job: ShardJob) -> None:
        self._turn_to(job)

    def end(self) -> None:
        self._turn_to(None)

    def _turn_to(self, job: ShardJob | None) -> None:
        with self._lock:
            self._job, self._shard_since_s = job, time.monotonic()
            self._of_shard.clear()

    def hear(self, progress: Progress) -> Progress:
        """What the job says of itself; the same, with the trouble there was since the last time."""
        with self._lock:
            self._all.update(progress.counts)
            self._of_shard.update(progress.counts)
            trouble, self._trouble = self._trouble, ""
        return replace(progress, trouble=trouble) if trouble else progress

    def _beat_on(self) -> None:
        pause_s = min(FIRST_S, WORKER_EVERY_S)
        while True:
            time.sleep(pause_s)
            pause_s = min(3 * pause_s, WORKER_EVERY_S)
            place = self._layout.worker_beat(self._worker)
            trouble = _write(self._layout, place, self._beat(pause_s).to_json())
            with self._lock:
                self._trouble = trouble

    def _beat(self, next_s: float) -> WorkerBeat:
        with self._lock:
            now_s, job, of_shard = time.monotonic(), self._job, self._of_shard
            window_s, window = self._window(now_s)
            self._n_beats += 1
            return WorkerBeat(
                **_about_us(),
                number=self._n_beats,
                next_s=next_s,
                age_s=_passed_s(self._since_s),
                worker=self._worker,
                shard=job.shard if job else "",
                shard_s=_passed_s(self._shard_since_s),
                clips=len(job.tasks) if job else 0,
                clips_ended=of_shard["clips"],
                clips_failed=of_shard["failures"],
                pairs_ended=of_shard["flows"] + of_shard["identical"],
                window_s=round(window_s, 3),
                window_clips=window["clips"],
                window_flows=window["flows"],
                window_pairs=window["flows"] + window["identical"],
            )

    def _window(self, now_s: float) -> tuple[float, Counter[str]]:
        """How long it is, and what was done in it."""
        while len(self._past) > 1 and now_s - self._past[1][0] >= WINDOW_S:
            self._past.popleft()
        began_s, before = self._past[0]
        self._past.append((now_s, self._all.copy()))
        return now_s - began_s, self._all - before


def once(warn: Tell) -> Tell:
    """Passes the first trouble with heartbeats on, as a warning."""
    was_told = threading.Event()

    def tell(trouble: str) -> None:
        if not was_told.is_set():
            was_told.set()
            warn(
                "heartbeats cannot be written, so flowprep status may not know of this run or of "
                f"its workers; it goes on: {trouble}"
            )

    return tell


def _write(layout: Layout, place: Place, data: bytes) -> str:
    """Why that did not work, or ""."""
    try:
        write_whole(place, data, layout.scratch)
    except Exception as error:  # noqa: BLE001 - nothing of this may end a run
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return ""


def _about_us() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid()}


def _passed_s(since_s: float) -> float:
    return round(time.monotonic() - since_s, 3)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
