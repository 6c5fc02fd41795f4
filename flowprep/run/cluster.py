"""A Ray cluster as the place where the work is done."""

from __future__ import annotations

import pickle
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

from flowprep.config import Settings
from flowprep.errors import FlowprepError
from flowprep.flow.base import uses_gpu
from flowprep.records import Video
from flowprep.run import ray
from flowprep.run.actors import RayPool
from flowprep.run.crew import Crew
from flowprep.run.executors import Berth, Resources, node_berths
from flowprep.run.job import ShardJob
from flowprep.run.nodes import Node, Question, Report
from flowprep.run.pool import NOBODY_S, Pool
from flowprep.run.probing import FEW, Prober, Reader, batches, probe_all, probe_by
from flowprep.run.progress import Display
from flowprep.run.roster import Roster
from flowprep.shard.layout import Layout
from flowprep.storage import Place, write_whole

T = TypeVar("T")
ANSWER_S = 60.0
"""Nodes may take so long to answer at the start; later ones are used when they do."""
ASK_AGAIN_S = 0.2


@contextmanager
def joined(resources: Resources, display: Display) -> Iterator[Cluster]:
    """The cluster, until the end of the context. Raises FlowprepError when it does not answer."""
    ray.join(resources.address)
    cluster = Cluster(resources, display)
    try:
        yield cluster
    finally:
        cluster.close()


class Cluster:
    """The nodes that can be used, as they come and go."""

    def __init__(self, resources: Resources, display: Display) -> None:
        self._resources, self._display = resources, display
        self._name = f"the Ray cluster at {resources.address}"
        self._roster: Roster
        self._has_requested = False
        by = "" if resources.ray_address else ", which RAY_ADDRESS names"
        display.note(f"works on {self._name}{by}: {_has(ray.nodes())}")

    @property
    def cores(self) -> int:
        return sum(node.cpus for node in ray.nodes())

    def choose_engine(
        self, settings: Settings, root: Place, layout: Layout | None
    ) -> tuple[str, str]:
        question = Question(engine=settings.engine, params=settings.engine_params, root=root)
        if layout:
            question = _with_token(question, layout)
        self._roster = Roster(ray.nodes, ray.Inquiry(), question, self._display.warn)
        self._await_nodes(question)
        common = self._roster.agree()
        if common is None:
            raise self._nobody(question)
        return common.engine, f"{common.build}, on {_has(self._roster.usable)}"

    def _await_nodes(self, question: Question) -> None:
        """Wait for the answers of all nodes, not too long, and as long as need be for one.

        Raises FlowprepError when there is none that can be used, with --workers only when none
        comes for long; and for a path that this machine alone sees.
        """
        started_s, told = time.monotonic(), ""
        while True:
            self._roster.look()
            waited_s = time.monotonic() - started_s
            is_time = self._roster.all_have_answered or waited_s > ANSWER_S
            if is_time:
                self._require_shared(f"--src {question.root}", lambda report: report.sees_source)
                self._require_shared("--out", lambda report: report.sees_out)
            if is_time and self._roster.usable:
                return
            nobody = not self._roster.usable and self._roster.all_have_answered
            if waited_s > NOBODY_S or (nobody and not self._resources.workers):
                raise self._nobody(question)
            if nobody and told != (why := self._nobody(question).message):
                told = why
                self._display.warn(f"{why}; waiting for others to come")
                self._request(question.needs_gpu)
            time.sleep(ASK_AGAIN_S)

    def _nobody(self, question: Question) -> FlowprepError:
        """What to say when no node can be used."""
        nodes = self._roster.nodes
        hint = "add nodes, or say with --workers how many workers to wait for"
        if not nodes:
            return FlowprepError(f"{self._name} has no cores", hint)
        if question.needs_gpu and not any(node.gpus for node in nodes):
            what = f"engine {question.engine!r} needs GPUs, and {self._name} has {_has(nodes)}"
            return FlowprepError(what, hint + ", or choose another --engine")
        why = {n: self._roster.objections.get(n.id, "it does not answer") for n in nodes}
        told = "; ".join(f"{node}: {reason}" for node, reason in why.items())
        return FlowprepError(
            f"no node of {self._name} can be used: {told}",
            "every node needs this flowprep, the same libraries, the engine, and --src and --out "
            "at the same place: a folder that all share, or a URL",
        )

    def _require_shared(self, what: str, sees: Callable[[Report], bool]) -> None:
        """Raise FlowprepError for a path that there is on this machine alone."""
        seeing, blind = self._roster.divided(sees)
        if blind and all(node.is_ours for node in seeing):
            raise FlowprepError(
                f"{what} is there on this machine only: {', '.join(map(str, blind))} "
                "did not find it, or found another of that name",
                "give a folder that all nodes share at the same path, or a URL such as s3://...",
            )

    def versions(self) -> dict[str, str]:
        assert self._roster.common is not None, "the engine is chosen first"
        return dict(self._roster.common.versions)

    def probe(self, root: Place, videos: list[Video], reader: Reader) -> Iterable[Video]:
        limits = self._resources.probe_limits
        if len(videos) <= FEW:
            yield from probe_all(root, limits, videos, reader)
            return
        start = partial(Prober, root, limits, reader)
        with self._crew(_a_core_each(start), len(batches(videos))) as crew:
            yield from probe_by(crew, videos)

    def call(self, function: Callable[[], T]) -> T:
        inquiry, node = ray.Inquiry(), self._roster.usable[0]
        inquiry.ask(node, pickle.dumps((function, ())), with_gpu=node.gpus > 0)
        while True:
            for _, problem, answer in inquiry.answers():
                if problem:
                    raise FlowprepError(f"node {node}: {problem}", "run the same command again")
                found: T = answer
                return found
            time.sleep(ASK_AGAIN_S)

    @contextmanager
    def open_pool(self, settings: Settings, n_jobs: int) -> Iterator[Pool[ShardJob]]:
        def hire(node: Node) -> list[Berth]:
            return node_berths(self._resources, settings, node.id, node.cpus, node.gpus)

        wanted = self._resources.workers
        with self._crew(hire, n_jobs) as crew:
            self._display.note(f"{len(crew)} workers on {_has(self._roster.usable)}")
            is_short = len(crew) < min(wanted, n_jobs)
            if is_short:
                self._display.warn(
                    f"{wanted} workers were asked for, and there is room for {len(crew)} now: "
                    f"{self._name} has {_has(self._roster.nodes)}; more start when nodes come"
                )
                self._request(uses_gpu(settings.engine))
            yield crew

    @contextmanager
    def _crew(self, hire: Callable[[Node], list[Berth]], n_jobs: int) -> Iterator[Crew]:
        warn, wanted = self._display.warn, self._resources.workers
        with closing(RayPool([])) as workers:
            yield Crew(workers, self._roster, hire, n_jobs, wanted, warn)

    def _request(self, on_gpu: bool) -> None:
        """Let an autoscaler know of the workers that were asked for."""
        share = 1 / (self._resources.workers_per_gpu or 2) if on_gpu else 0.0
        self._has_requested = True
        ray.request(self._resources.workers, share)

    def close(self) -> None:
        """Leave the cluster as it was."""
        if self._has_requested:
            ray.request(0, 0)
        ray.leave()


def _with_token(question: Question, layout: Layout) -> Question:
    """With a file in the folder of the dataset that nobody else can have. A URL is one place."""
    if layout.is_remote:
        return replace(question, token=layout.lock)
    token, word = layout.scratch / "token", uuid.uuid4().hex.encode()
    write_whole(token, word, layout.scratch)
    return replace(question, token=token, word=word)


def _a_core_each(start: Callable[[int], object]) -> Callable[[Node], list[Berth]]:
    return lambda node: [Berth(start, node_id=node.id)] * node.cpus


def _has(nodes: list[Node]) -> str:
    """3 nodes with 12 cores and 1 GPUs"""
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    return f"{len(nodes)} nodes with {cpus} cores" + (f" and {gpus} GPUs" if gpus else "")
