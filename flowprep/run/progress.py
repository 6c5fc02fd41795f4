"""What a user sees of a run: a live bar, lines when nobody watches, or JSON for machines."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from flowprep.errors import FlowprepError
from flowprep.labels.report import JoinReport
from flowprep.records import Video
from flowprep.run.job import PlannedShard
from flowprep.run.pool import Died, Done, Message, Ready, Refused, is_put_off
from flowprep.run.reporting import Progress as JobProgress

T = TypeVar("T")
LINE_EVERY_S = 10.0
STAGE_GROUPS = {
    "decode": "decode",
    "resize": "decode",
    "flow": "flow",
    "encode rgb": "encode",
    "quantize": "encode",
    "encode flow": "encode",
    "tar": "write",
}
"""Stages that run in one thread of a worker."""


class Tally:
    """Running totals of a run. `rate` is computed flows a second, identical pairs not counted."""

    def __init__(self, shards: Sequence[PlannedShard]) -> None:
        self.n_clips = sum(one.n_clips for one in shards)
        self.n_pairs = sum(one.n_pairs for one in shards)
        self.counts: Counter[str] = Counter()
        self.cpu_s: defaultdict[str, float] = defaultdict(float)
        self.wall_s: defaultdict[str, float] = defaultdict(float)
        self.machines: dict[int, str] = {}  # of each worker
        self.started = time.monotonic()

    def hear(self, message: Message) -> None:
        if isinstance(message, Ready):
            self.machines[message.worker] = message.machine
        elif isinstance(message, JobProgress):
            self._add(message)

    def _add(self, progress: JobProgress) -> None:
        self.counts.update(progress.counts)
        for mine, theirs in ((self.cpu_s, progress.cpu_s), (self.wall_s, progress.wall_s)):
            for stage, seconds in theirs.items():
                mine[stage] += seconds

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    @property
    def rate(self) -> float:
        return self.counts["flows"] / max(1e-9, self.elapsed_s)

    @property
    def eta_s(self) -> float | None:
        """Seconds left at the rate so far; None before the first flow."""
        done = self.counts["flows"] + self.counts["identical"]
        return (self.n_pairs - done) * self.elapsed_s / done if done else None

    @property
    def bottleneck(self) -> str:
        """The group of stages that the workers spend most time in."""
        groups: Counter[str] = Counter()
        for stage, seconds in self.wall_s.items():
            groups[STAGE_GROUPS[stage]] += seconds  # type: ignore[assignment]
        return groups.most_common(1)[0][0] if groups else "-"

    def as_dict(self) -> dict[str, Any]:
        return {
            "clips": self.counts["clips"],
            "clips_total": self.n_clips,
            "failures": self.counts["failures"],
            "flows": self.counts["flows"],
            "identical_pairs": self.counts["identical"],
            "flows_per_s": round(self.rate, 3),
            "eta_s": None if self.eta_s is None else round(self.eta_s, 1),
            "bottleneck": self.bottleneck,
            "cpu_s": {name: round(s, 3) for name, s in sorted(self.cpu_s.items())},
        }


class Display(Protocol):
    """Where a run tells what it does."""

    tally: Tally  # of the shards that are being made, or were last

    def note(self, text: str) -> None:
        """Something decided that the user should know."""
        ...

    def warn(self, text: str) -> None:
        """A trouble that the run goes on with; told in any case."""
        ...

    def joined(self, report: JoinReport) -> None:
        """How annotations and files met."""
        ...

    def probing(self, videos: Iterable[Video], total: int) -> Iterable[Video]:
        """Pass probed videos on, showing how far it is."""
        ...

    def running(self, shards: Sequence[PlannedShard]) -> Any:
        """A context in which shards are made."""
        ...

    def on_message(self, message: Message) -> None:
        """What a worker says."""
        ...


def make_display(log_json: bool, quiet: bool) -> Display:
    """JSON lines on standard output, or a bar on standard error (lines when it is no terminal)."""
    if log_json:
        return JsonDisplay()
    return TextDisplay(Console(stderr=True, highlight=False), quiet)


class JsonDisplay:
    """One JSON object a line: `event` says which."""

    def __init__(self) -> None:
        self.tally = Tally([])
        self._told = 0.0

    def tell(self, event: str, **fields: Any) -> None:
        sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
        sys.stdout.flush()

    def note(self, text: str) -> None:
        self.tell("note", text=text)

    def warn(self, text: str) -> None:
        self.tell("warning", text=text)

    def joined(self, report: JoinReport) -> None:
        self.tell("join", **report.as_dict())

    def probing(self, videos: Iterable[Video], total: int) -> Iterator[Video]:
        started = time.monotonic()
        for number, video in enumerate(videos, start=1):
            yield video
            if number % 1000 == 0 or number == total:
                seconds = round(time.monotonic() - started, 3)
                self.tell("probe", done=number, total=total, elapsed_s=seconds)

    @contextmanager
    def running(self, shards: Sequence[PlannedShard]) -> Iterator[None]:
        self.tally = Tally(shards)
        yield
        self.tell("progress", **self.tally.as_dict())

    def on_message(self, message: Message) -> None:
        self.tally.hear(message)
        if isinstance(message, JobProgress):
            if time.monotonic() - self._told > 1:
                self._told = time.monotonic()
                self.tell("progress", **self.tally.as_dict())
        elif isinstance(message, Died | Refused):
            self.tell("worker", worker=message.worker, problem=problem(message))
        elif isinstance(message, Done):
            failures = [failure.__dict__ for failure in message.failures]
            self.tell("shard", shard=message.shard, samples=message.n_samples, failures=failures)


def problem(message: Died | Refused) -> str:
    """What to say of a worker in trouble."""
    if isinstance(message, Died):
        where = f" on {', '.join(message.paths)}" if message.paths else ""
        return f"worker {message.worker} died{where}: {message.detail}; its shard is tried again"
    error = message.error
    told = error.message if isinstance(error, FlowprepError) else str(error).splitlines()[-1]
    later = "; its shard is tried again" if is_put_off(message) else ""
    return f"worker {message.worker}: {told}{later}"


class TextDisplay:
    """For people."""

    def __init__(self, console: Console, quiet: bool) -> None:
        self._console, self._quiet = console, quiet
        self._bar: Progress | None = None
        self._task: Any = None
        self.tally = Tally([])
        self._told = 0.0

    def note(self, text: str) -> None:
        if not self._quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def joined(self, report: JoinReport) -> None:
        if not self._quiet or report.leaves_out:
            for line in report.lines():
                self._console.print(line, markup=False, soft_wrap=True)

    def probing(self, videos: Iterable[Video], total: int) -> Iterator[Video]:
        if not total:
            yield from videos
            return
        started = time.monotonic()
        with self._progress("probe", "videos") as bar:
            task = bar.add_task("", total=total, text="")
            for video in videos:
                yield video
                bar.advance(task)
        seconds = time.monotonic() - started
        self.note(f"probed {total} videos in {seconds:.1f} s ({total / max(seconds, 1e-9):.0f}/s)")

    @contextmanager
    def running(self, shards: Sequence[PlannedShard]) -> Iterator[None]:
        self.tally = Tally(shards)
        self._told = time.monotonic()
        with self._progress("extract", "clips") as self._bar:
            self._task = self._bar.add_task("", total=self.tally.n_clips, text="starting")
            yield
        self._bar = None

    def _progress(self, what: str, unit: str) -> Progress:
        return Progress(
            TextColumn(what),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn(unit),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=self._quiet or not self._console.is_terminal,
        )

    def on_message(self, message: Message) -> None:
        self.tally.hear(message)
        if isinstance(message, Died | Refused):
            self._console.print(problem(message), markup=False, soft_wrap=True)
        elif isinstance(message, JobProgress):
            self._show()

    def _show(self) -> None:
        text = self.line()
        if self._bar is not None:
            self._bar.update(self._task, completed=self.tally.counts["clips"], text=text)
        now = time.monotonic()
        if not self._console.is_terminal and not self._quiet and now - self._told > LINE_EVERY_S:
            self._told = now
            done = f"{self.tally.counts['clips']}/{self.tally.n_clips} clips"
            self._console.print(f"{done}, {text}", markup=False, soft_wrap=True)

    def line(self) -> str:
        """Rate, time left, failures, bottleneck."""
        eta = self.tally.eta_s
        parts = [
            f"{self.tally.rate:.1f} flows/s",
            f"{duration(eta)} left" if eta is not None else "",
            f"{self.tally.counts['failures']} failed" if self.tally.counts["failures"] else "",
            f"bottleneck: {self.tally.bottleneck}" if self.tally.rate else "",
        ]
        return ", ".join(part for part in parts if part)


def duration(seconds: float) -> str:
    """1:02:03, or 02:03."""
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m:02d}:{s:02d}"
