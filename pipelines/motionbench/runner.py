"""Runs jobs in processes of their own, several at once, and goes on where it stopped."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from functools import cache
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import torch

from flowprep.errors import FlowprepError
from flowprep.processes import end_with_parent, how_it_ended
from pipelines.motionbench.arms import PAIRS, WAY_PAIRS
from pipelines.motionbench.bench import Bench
from pipelines.motionbench.dataset import Task
from pipelines.motionbench.judge import confusion, judge, together
from pipelines.motionbench.plan import Job
from pipelines.motionbench.training import Interrupted, TrainJob
from train.common import EXIT_INTERRUPTED, EXIT_USER, tell

PRELOADED = ("__main__", __name__, "torch.utils.tensorboard")
STOP_S = 60.0
"""So long a job may take to save itself."""


def run_jobs(bench: Bench, jobs: Sequence[Job], at_once: int) -> None:
    """Do what has no result yet. Raises FlowprepError naming a job that failed, and its log.

    However this ends, no job is left running: those that train save their state first.
    """
    running = _Running(bench, max(1, _cores() // at_once))
    waiting = [job for job in jobs if not bench.has(job.name)]
    n_all = len(jobs)
    try:
        while waiting or running.jobs:
            for job in _ready(bench, waiting, at_once - len(running.jobs)):
                waiting.remove(job)
                running.start(job)
            for job, seconds in running.ended():
                n_done = n_all - len(waiting) - len(running.jobs)
                tell(f"{n_done}/{n_all}  {job.name}  {seconds:.0f} s")
    finally:
        running.stop()


def _ready(bench: Bench, waiting: Sequence[Job], n: int) -> list[Job]:
    """The first `n` whose needs are met."""
    met = (job for job in waiting if all(bench.has(name) for name in job.needs(bench)))
    return [job for job, _ in zip(met, range(n), strict=False)]


def _cores() -> int:
    return len(os.sched_getaffinity(0))


class _Running:
    """The processes of the jobs that are being done."""

    def __init__(self, bench: Bench, threads: int) -> None:
        self._bench, self._threads = bench, threads
        self.jobs: dict[Job, tuple[BaseProcess, float]] = {}

    def start(self, job: Job) -> None:
        work = (self._bench, job, self._threads, log_of(self._bench, job))
        process = _forks().Process(target=_work, args=work)
        process.start()
        self.jobs[job] = process, time.monotonic()

    def ended(self) -> list[tuple[Job, float]]:
        """Wait for one or more; how long each took. Raises FlowprepError where one failed."""
        wait([process.sentinel for process, _ in self.jobs.values()])
        found = []
        for job, (process, began_s) in list(self.jobs.items()):
            if process.is_alive():
                continue
            process.join()
            del self.jobs[job]
            _check(job, process.exitcode, log_of(self._bench, job))
            found.append((job, time.monotonic() - began_s))
        return found

    def stop(self) -> None:
        """Ask all to save and end; after STOP_S they must."""
        for process, _ in self.jobs.values():
            process.terminate()
        for process, _ in self.jobs.values():
            process.join(STOP_S)
            process.kill()
            process.join()


@cache
def _forks() -> ForkServerContext:
    """Processes come from one that has imported all that is slow to import, and done no more."""
    context = get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def log_of(bench: Bench, job: Job) -> Path:
    """What a job printed."""
    return bench.out / "logs" / f"{job.name}.log"


def _check(job: Job, exit_code: int | None, log: Path) -> None:
    if exit_code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if exit_code:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise FlowprepError(
            f"{job.name} {how_it_ended(exit_code)}: {' '.join(last)}",
            f"{log} has all that it printed; run this again, what is done stays",
        )


def _work(bench: Bench, job: Job, threads: int, log: Path) -> None:
    """Do one job, in a process of its own; all that it prints goes to its log."""
    end_with_parent()
    torch.set_num_threads(threads)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    try:
        bench.write(job.name, job.do(bench))
    except Interrupted:
        sys.exit(EXIT_INTERRUPTED)
    except FlowprepError as error:
        tell(f"Error: {error}")
        sys.exit(EXIT_USER)


def write_pairs(bench: Bench, tasks: Sequence[Task]) -> None:
    """What two networks say together, wherever both are there."""
    for task in tasks:
        for name, (one, other) in (PAIRS | WAY_PAIRS).items():
            for seed in bench.scale.seeds:
                members = [TrainJob(task, arm, seed).name for arm in (one, other)]
                if all(bench.has(member) for member in members):
                    _write_pair(bench, task, name, seed, members)


def _write_pair(bench: Bench, task: Task, name: str, seed: int, members: list[str]) -> None:
    files = [np.load(bench.run(member) / "test.npz") for member in members]
    both = together(*(dict(file) for file in files))
    facts = {"space": task.space, "n_train": task.n_train, "bias": task.bias}
    found = {"arm": name, "seed": seed, "test": judge(*both), "confusion": confusion(*both)}
    bench.write(f"{task}/{name}-s{seed}", facts | found)
