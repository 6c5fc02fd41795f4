"""Flows a second of an engine: one worker by itself, then all that an extraction would start."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from flowprep.errors import FlowprepError, portable
from flowprep.processes import end_with_parent, how_it_ended
from flowprep.records import U8
from flowprep.run.pool import WorkerSpec

Worker = tuple[SpawnProcess, Connection]


@dataclass(frozen=True)
class Tried:
    """What a worker did in its time."""

    n_pairs: int
    seconds: float

    @property
    def flows_per_s(self) -> float:
        return self.n_pairs / self.seconds


NOTHING = Tried(0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Rates:
    """`alone` is one worker by itself, `together` are all at the same time."""

    alone: Tried
    together: list[Tried]

    @property
    def flows_per_s_together(self) -> float:
        return sum(tried.flows_per_s for tried in self.together)


def measure(specs: list[WorkerSpec], gray_THW: U8, budget_s: float) -> Rates:
    """Let the workers compute the pairs of the clip, over and over, for `budget_s` each time.

    A worker ends the pair that it is on. Raises FlowprepError when one fails.
    """
    with _started(specs, gray_THW, budget_s) as workers:
        _answers(workers, specs)  # each is ready
        (alone,) = _asked(workers[:1], specs)
        together = _asked(workers, specs) if len(workers) > 1 else [alone]
    return Rates(alone=alone, together=together)


@contextmanager
def _started(specs: list[WorkerSpec], gray_THW: U8, budget_s: float) -> Iterator[list[Worker]]:
    context, workers = multiprocessing.get_context("spawn"), list[Worker]()
    try:
        for spec in specs:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(spec, gray_THW, budget_s, theirs))
            process.start()
            theirs.close()
            workers.append((process, ours))
        yield workers
    finally:
        for process, pipe in workers:
            process.kill()
            process.join()
            pipe.close()


def _asked(workers: list[Worker], specs: list[WorkerSpec]) -> list[Tried]:
    """What these workers do in their time, all from now on."""
    for _, pipe in workers:
        pipe.send("go")
    return _answers(workers, specs)


def _answers(workers: list[Worker], specs: list[WorkerSpec]) -> list[Tried]:
    """What each says next. Raises FlowprepError as soon as one has failed."""
    waiting = {pipe: process for process, pipe in workers}
    answers = []
    while waiting:
        for pipe in wait(list(waiting)):
            assert isinstance(pipe, Connection)
            answers.append(_answer(pipe, waiting.pop(pipe), specs[0].settings.engine))
    return answers


def _answer(pipe: Connection, process: SpawnProcess, engine: str) -> Tried:
    try:
        answer: Tried | Exception = pipe.recv()
    except (EOFError, OSError):
        process.join(timeout=5)
        answer = RuntimeError(f"its process {how_it_ended(process.exitcode)}")
    if isinstance(answer, FlowprepError):
        raise answer
    if isinstance(answer, Exception):
        raise FlowprepError(
            f"engine {engine!r} failed on the rendered clip: {str(answer).splitlines()[-1]}",
            "choose others with --engine",
        ) from answer
    return answer


def _serve(spec: WorkerSpec, gray_THW: U8, budget_s: float, pipe: Connection) -> None:
    """A worker's process: it says what came of getting ready, then of each time it is asked."""
    end_with_parent()
    try:
        turn = _prepared(spec, gray_THW, budget_s)
        pipe.send(NOTHING)
        while pipe.recv():
            pipe.send(_timed(turn, budget_s))
    except Exception as error:  # noqa: BLE001 - an engine may raise anything
        pipe.send(portable(error))


def _prepared(spec: WorkerSpec, gray_THW: U8, budget_s: float) -> Callable[[], int]:
    """A function that computes some pairs as an extraction would, and says how many.

    The first pair comes before: it is the slowest, as code is compiled and memory is taken.
    """
    import cv2

    from flowprep.flow.distinct import compute_to_store
    from flowprep.run.making import make_tools

    cv2.setNumThreads(spec.threads)
    options = spec.engine_options
    tools = make_tools(
        spec.settings, device=spec.device, threads=spec.threads, engine_options=options
    )
    clips = _turns(gray_THW, tools.engine.batch_pairs((gray_THW.shape[1], gray_THW.shape[2])))

    def one_pair() -> None:
        compute_to_store(tools.engine, [gray_THW[:2]], tools.quantizer)

    pair_s = _seconds(one_pair)
    if pair_s < budget_s:
        pair_s = _seconds(one_pair)
    n_pairs = sum(len(clip) - 1 for clip in clips)
    if len(clips) == 1 and n_pairs * pair_s > budget_s / 4:
        clips = [gray_THW[i : i + 2] for i in range(n_pairs)]  # pair by pair, to end in time
        following = _over_and_over(clips)
        return lambda: len(compute_to_store(tools.engine, [next(following)], tools.quantizer)[0])
    return lambda: sum(len(f) for f in compute_to_store(tools.engine, clips, tools.quantizer))


def _turns(gray_THW: U8, n_wanted: int) -> list[U8]:
    """The clip, as often as it takes to give an engine the pairs that it likes at a time."""
    return [gray_THW] * max(1, -(-n_wanted // (len(gray_THW) - 1)))


def _over_and_over(clips: list[U8]) -> Iterator[U8]:
    while True:
        yield from clips


def _timed(turn: Callable[[], int], budget_s: float) -> Tried:
    n_pairs, started = 0, time.perf_counter()
    while True:
        n_pairs += turn()
        seconds = time.perf_counter() - started
        if seconds >= budget_s:
            return Tried(n_pairs, seconds)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
