"""Which nodes of a cluster can be used. They come and go, and each is asked what it has."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Protocol

from flowprep.run.nodes import Common, Node, Question, Report, common, examine, unseen


class Asks(Protocol):
    """How nodes are asked; `ray.Inquiry` is one."""

    def ask(self, node: Node, question: bytes, with_gpu: bool) -> None: ...

    def answers(self) -> Iterator[tuple[str, str, Any]]:
        """(node, why it is of no use or "", its Report) of those that have answered by now."""
        ...


class Roster:
    """The nodes that have cores, what they have answered, and why some are not used."""

    def __init__(
        self,
        nodes: Callable[[], list[Node]],
        inquiry: Asks,
        question: Question,
        warn: Callable[[str], None],
    ) -> None:
        self._nodes, self._inquiry, self._question, self._warn = nodes, inquiry, question, warn
        self._there: dict[str, Node] = {}
        self._reports: dict[str, Report] = {}
        self.objections: dict[str, str] = {}  # node -> why it is not used
        self.common: Common | None = None

    def look(self) -> None:
        """See who has come and gone, and what they answer; waits for nothing."""
        now = {node.id: node for node in self._nodes() if node.cpus}
        for node_id in self._there.keys() - now.keys():
            self._reports.pop(node_id, None)
            self.objections.pop(node_id, None)
        for node_id in now.keys() - self._there.keys():
            self._ask(now[node_id])
        self._there = now
        for node_id, problem, report in self._inquiry.answers():
            if node_id in now:
                self._hear(now[node_id], problem, report)

    def _ask(self, node: Node) -> None:
        if self._question.needs_gpu and not node.gpus:
            self.objections[node.id] = "it has no GPU"
            return
        gpu_engine = self._question.needs_gpu or self._question.engine == "auto"
        question = pickle.dumps((examine, (self._question,)))
        self._inquiry.ask(node, question, with_gpu=gpu_engine and node.gpus > 0)

    def _hear(self, node: Node, problem: str, report: Report) -> None:
        if not problem:
            self._reports[node.id] = report
            problem = unseen(report)
        if not problem and self.common:
            problem = self.common.objection(report)
        if not problem and not report.engine:
            problem = report.problem
        if problem:
            self.objections[node.id] = problem
            if self.common:
                self._warn(f"node {node} is not used: {problem}")

    def agree(self) -> Common | None:
        """Settle what all nodes in use have in common, now and from now on, and tell who is left
        out. None, and nothing told, when no node can be used.
        """
        fit = [(n, self._reports[n.id]) for n in self.nodes if n.id in self._reports]
        self.common = common(fit, self._question.engine)
        if self.common is None:
            return None
        self._question = replace(self._question, engine=self.common.engine)
        for node, report in fit:
            if problem := self.common.objection(report):
                self.objections[node.id] = problem
        for node in self.nodes:
            if node.id in self.objections:
                self._warn(f"node {node} is not used: {self.objections[node.id]}")
            elif node.id not in self._reports:
                self._warn(f"node {node} has not answered yet, and is not used before it does")
        return self.common

    def divided(self, sees: Callable[[Report], bool]) -> tuple[list[Node], list[Node]]:
        """Those whose report says so, and those whose report does not."""
        seeing, blind = list[Node](), list[Node]()
        for node in self.nodes:
            if node.id in self._reports:
                (seeing if sees(self._reports[node.id]) else blind).append(node)
        return seeing, blind

    @property
    def nodes(self) -> list[Node]:
        """All that have cores."""
        return sorted(self._there.values(), key=lambda node: (node.name, node.address))

    @property
    def usable(self) -> list[Node]:
        return [n for n in self.nodes if n.id in self._reports and n.id not in self.objections]

    @property
    def all_have_answered(self) -> bool:
        return all(n.id in self._reports or n.id in self.objections for n in self.nodes)
