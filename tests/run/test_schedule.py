"""Which worker gets what, and what becomes of a shard whose workers die."""

from __future__ import annotations

import errno
import weakref
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from flowprep.config import Settings
from flowprep.errors import FlowprepError, StoreDown
from flowprep.records import Clip
from flowprep.run import extract, schedule
from flowprep.run.job import PlannedShard, ShardJob
from flowprep.run.pool import Died, Done, Message, Ready, Refused
from flowprep.run.progress import problem
from flowprep.run.reporting import Progress
from flowprep.run.schedule import MAX_DEATHS, MAX_DOWN, Outcome, Schedule
from flowprep.run.stages import ClipTask

HERE = "this machine"

KEYS = ("a", "b", "c", "d")


def job(shard: str, n_frames: int = 2) -> PlannedShard:
    return PlannedShard(
        shard=shard,
        n_frames=n_frames * len(KEYS),
        n_clips=len(KEYS),
        n_pairs=(n_frames - 1) * len(KEYS),
        build=partial(built, shard, n_frames),
    )


def built(shard: str, n_frames: int) -> ShardJob:
    clips = [
        Clip(
            key=f"{shard}-{key}",
            path=f"{key}.mp4",
            number=0,
            label="",
            split="train",
            source_index=np.arange(n_frames),
        )
        for key in KEYS
    ]
    tasks = [ClipTask(clip=clip, media=None, size_bytes=0, mtime_ns=0) for clip in clips]
    return ShardJob(
        shard=shard,
        root=Path("src"),
        out=Path("out"),
        settings=Settings(),
        tasks=tasks,
        class_index={},
        versions={},
    )


class Script:
    """A pool whose workers answer each job with the next line of its shard's script.

    A line is a set of clips during which the worker dies, "done", "stuck", or an exception.
    """

    def __init__(self, size: int, **lines: list[object]) -> None:
        self._lines = lines
        self.submitted: list[tuple[int, ShardJob]] = []
        self.killed: list[int] = []
        self.restarted: list[int] = []
        self._coming: list[tuple[int, Message]] = [
            (number, Ready(worker=number, machine=HERE)) for number in range(size)
        ]

    def submit(self, worker: int, job: ShardJob) -> None:
        self.submitted.append((worker, job))
        line = self._lines[job.shard].pop(0)
        if line == "done":
            done = Done(worker=worker, shard=job.shard, n_samples=4, failures=[])
            self._coming.append((worker, done))
        elif isinstance(line, Exception):
            self._coming.append((worker, Refused(worker=worker, error=line)))
        else:
            doing = ("a",) if line == "stuck" else line
            keys = tuple(f"{job.shard}-{key}" for key in doing)  # type: ignore[attr-defined]
            self._coming.append((worker, Progress(shard=job.shard, doing=keys)))
            if line != "stuck":
                self._coming.append((worker, Died(worker=worker, detail="ended by SIGSEGV")))

    def wait(self, timeout_s: float) -> Iterable[tuple[int, Message]]:
        coming, self._coming = self._coming, []
        return coming

    def kill(self, worker: int) -> None:
        self.killed.append(worker)
        self._coming.append((worker, Died(worker=worker, detail="ended by SIGKILL")))

    def restart(self, worker: int) -> None:
        self.restarted.append(worker)
        self._coming.append((worker, Ready(worker=worker, machine=HERE)))

    def shortage(self) -> str:
        return "one machine, and it is busy"

    def close(self) -> None:
        pass


def run(pool: Script, *jobs: PlannedShard, stall_s: float = 600) -> tuple[Outcome, list[Message]]:
    heard: list[Message] = []
    outcome = Schedule(jobs, pool, heard.append, stall_s).run(lambda: None)
    return outcome, heard


def suspects(pool: Script, shard: str) -> list[str]:
    """Of each try of a shard, in order."""
    return [
        "".join(sorted(key[-1] for key in job.suspects))
        for _, job in pool.submitted
        if job.shard == shard
    ]


def test_the_longest_shard_comes_first_and_every_worker_has_one() -> None:
    pool = Script(2, s=["done"], m=["done"], l=["done"])
    outcome, _ = run(pool, job("s", 2), job("l", 9), job("m", 5))
    assert [(worker, j.shard) for worker, j in pool.submitted[:2]] == [(0, "l"), (1, "m")]
    assert {done.shard for done in outcome.done} == {"s", "m", "l"}


def test_what_a_worker_was_on_when_it_died_is_made_apart() -> None:
    pool = Script(1, x=[{"b"}, {"c", "d"}, "done"])
    outcome, heard = run(pool, job("x"))
    assert suspects(pool, "x") == ["", "b", "bcd"]
    assert [done.shard for done in outcome.done] == ["x"]
    assert [m.paths for m in heard if isinstance(m, Died)] == [("b.mp4",), ("c.mp4", "d.mp4")]
    assert pool.restarted == [0, 0]


def test_after_three_deaths_every_clip_is_made_apart() -> None:
    pool = Script(1, x=[{"a"}, set(), set(), "done"])
    run(pool, job("x"))
    assert suspects(pool, "x") == ["", "a", "a", "abcd"]


def test_a_shard_on_which_workers_go_on_dying_is_given_up_and_others_are_made() -> None:
    pool = Script(1, x=[set()] * MAX_DEATHS, y=["done"])
    outcome, _ = run(pool, job("x"), job("y"))
    assert [done.shard for done in outcome.done] == ["y"]
    assert outcome.lost == {"x": "6 workers died on it, the last one: ended by SIGSEGV"}


def test_a_stuck_worker_is_killed_once_and_its_clip_suspected() -> None:
    pool = Script(1, x=["stuck", "done"])
    outcome, heard = run(pool, job("x"), stall_s=0.05)
    assert pool.killed == [0]
    assert suspects(pool, "x") == ["", "a"]
    assert [m.detail for m in heard if isinstance(m, Died)] == ["no sign of life for too long"]
    assert [done.shard for done in outcome.done] == ["x"]


def test_a_worker_that_is_not_on_a_clip_yet_has_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "START_S", 0.3)
    running = schedule.Running(job("x"), built("x", 2), heard_s=schedule.time.monotonic() - 0.2)
    assert not running.is_stuck(0.1)
    running.doing = ("x-a",)
    assert running.is_stuck(0.1)
    running.doing, running.heard_s = (), running.heard_s - 0.2
    assert running.is_stuck(0.1)


class Unplaced(Script):
    """Worker 1 has died, and no machine has room for another."""

    def restart(self, worker: int) -> None:
        self.restarted.append(worker)
        if worker != 1:
            self._coming.append((worker, Ready(worker=worker, machine=HERE)))


def test_a_worker_that_cannot_be_started_again_keeps_no_shard_waiting() -> None:
    pool = Unplaced(2, x=["done"], y=[{"a"}, "done"], z=["done"])
    outcome, _ = run(pool, job("x", 9), job("y", 8), job("z", 7))
    assert {done.shard for done in outcome.done} == {"x", "y", "z"}
    assert [worker for worker, j in pool.submitted if j.shard == "y"] == [1, 0]


def test_nobody_to_do_the_work_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "NOBODY_S", 0.05)
    pool = Script(0, x=["done"])
    with pytest.raises(FlowprepError, match=r"no worker could be started .* it is busy"):
        run(pool, job("x"))


class Stillborn(Script):
    """Workers die before they are ready."""

    def restart(self, worker: int) -> None:
        self.restarted.append(worker)
        self._coming.append((worker, Died(worker=worker, detail="ended by SIGILL")))


class Fleeting(Script):
    """Workers that have come are gone with their machines; in the end one stays."""

    def restart(self, worker: int) -> None:
        self.restarted.append(worker)
        if len(self.restarted) > 2 * MAX_DEATHS:
            self._coming.append((worker, Ready(worker=worker, machine=HERE)))
        else:
            gone = Died(worker=worker, detail="its node is gone", with_node=True)
            self._coming.append((worker, gone))


def test_workers_that_go_with_their_machines_do_not_count_as_broken() -> None:
    pool = Fleeting(0, x=["done"])
    pool.restart(0)
    outcome, _ = run(pool, job("x"))
    assert [done.shard for done in outcome.done] == ["x"]


def test_workers_that_die_at_their_start_end_the_run() -> None:
    pool = Stillborn(0, x=["done"])
    pool.restart(0)
    with pytest.raises(FlowprepError, match=r"6 workers in a row died .* SIGILL"):
        run(pool, job("x"))


class Evicted(Script):
    """While shard x is made, all workers that have nothing to do are lost."""

    def submit(self, worker: int, job: ShardJob) -> None:
        super().submit(worker, job)
        lost = range(1, MAX_DEATHS + 1)
        deaths = [(number, Died(worker=number, detail="its node is lost")) for number in lost]
        self._coming = [*deaths, *self._coming]


def test_workers_that_go_while_they_have_nothing_to_do_end_no_run() -> None:
    outcome, heard = run(Evicted(MAX_DEATHS + 1, x=["done"]), job("x"))
    assert [done.shard for done in outcome.done] == ["x"]
    assert len([m for m in heard if isinstance(m, Died)]) == MAX_DEATHS


def test_workers_that_cannot_start_end_no_run_in_which_others_work() -> None:
    pool = Evicted(1, x=["done"], y=["done"])  # the others are not ready yet when they are lost
    outcome, _ = run(pool, job("x", 9), job("y", 8))
    assert {done.shard for done in outcome.done} == {"x", "y"}


def test_a_long_shard_is_tried_again_before_shorter_ones() -> None:
    pool = Script(1, long=[{"a"}, "done"], b=["done"], c=["done"])
    run(pool, job("long", 9), job("b", 5), job("c", 4))
    assert [j.shard for _, j in pool.submitted] == ["long", "long", "b", "c"]


def test_an_exception_costs_its_shard_and_a_full_disk_ends_the_run() -> None:
    outcome, _ = run(Script(1, x=[RuntimeError("torn")], y=["done"]), job("x"), job("y"))
    assert outcome.lost == {"x": "RuntimeError: torn"}
    assert [done.shard for done in outcome.done] == ["y"]
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(FlowprepError, match="cannot write the shards: No space left") as raised:
        run(Script(1, x=[full], y=["done"]), job("x"), job("y"))
    assert "goes on where it stopped" in raised.value.hint


DOWN = StoreDown("s3://b/k: no success for 180 s: SlowDown", "see that it can be reached")


def test_a_shard_for_whose_worker_storage_was_down_comes_again_after_all_others() -> None:
    pool = Script(1, x=[DOWN, "done"], y=["done"], z=["done"])
    outcome, heard = run(pool, job("x", 9), job("y"), job("z"))
    assert [asked.shard for _, asked in pool.submitted] == ["x", "y", "z", "x"]
    assert (len(outcome.done), outcome.lost) == (3, {})
    told = [problem(message) for message in heard if isinstance(message, Refused)]
    assert told == [f"worker 0: {DOWN.message}; its shard is tried again"]


@pytest.mark.parametrize("n_workers", [1, 3])
def test_storage_that_stays_down_ends_the_run_before_every_shard_was_tried(n_workers: int) -> None:
    shards = [f"s{number}" for number in range(100)]
    pool = Script(n_workers, **{shard: [DOWN] * 9 for shard in shards})
    with pytest.raises(StoreDown, match="no success for 180 s"):
        run(pool, *map(job, shards))
    assert len(pool.submitted) <= (MAX_DOWN + 1) * n_workers


def test_one_object_that_never_works_keeps_no_other_from_being_made() -> None:
    pool = Script(2, bad=[DOWN] * 9, **{f"s{number}": ["done"] for number in range(20)})
    with pytest.raises(StoreDown):
        run(pool, job("bad", 9), *(job(f"s{number}") for number in range(20)))
    tried = [asked.shard for _, asked in pool.submitted]
    assert {shard for shard in tried if shard != "bad"} == {f"s{number}" for number in range(20)}
    assert tried.count("bad") <= MAX_DOWN + 1


def test_a_job_is_built_when_a_worker_takes_it_and_is_not_kept() -> None:
    """A million clips with their frame times would not fit into the driver."""
    alive: list[weakref.ref[ClipTask]] = []
    most = 0

    def build(shard: str) -> ShardJob:
        nonlocal most
        new = built(shard, 2)
        alive.append(weakref.ref(new.tasks[0]))
        most = max(most, sum(one() is not None for one in alive))
        return new

    names = [f"s{i:02d}" for i in range(20)]
    pool = Script(2, **{name: ["done"] for name in names})
    pool.submitted = Forgetful()
    outcome, _ = run(pool, *(replace(job(n), build=partial(build, n)) for n in names))
    assert len(outcome.done) == len(alive) == 20
    assert most <= 3  # of two workers, and the one that is built


class Forgetful(list[tuple[int, ShardJob]]):
    """Keeps no job."""

    def append(self, item: tuple[int, ShardJob]) -> None:
        pass


def test_an_interrupt_ends_the_loop_and_keeps_what_is_done() -> None:
    def interrupt() -> None:
        if schedule_.outcome.done:
            raise KeyboardInterrupt

    pool = Script(1, x=["done"], y=["done"])
    schedule_ = Schedule([job("x", 9), job("y")], pool, lambda _: None)
    outcome = schedule_.run(interrupt)
    assert outcome.interrupted
    assert [done.shard for done in outcome.done] == ["x"]
    assert [j.shard for _, j in pool.submitted] == ["x"]


def test_a_disk_that_runs_full_is_seen_before_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = extract.SpaceWatch(tmp_path)
    monkeypatch.setattr(extract, "free_bytes", lambda _: 1_000_000)
    watch.check()
    monkeypatch.setattr(extract, "LOOK_EVERY_S", 0.0)
    with pytest.raises(FlowprepError, match="1 MB are left") as raised:
        watch.check()
    assert "make room" in raised.value.hint
