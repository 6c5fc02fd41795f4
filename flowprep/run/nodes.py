"""The nodes of a cluster: what each is asked, and what makes it one that can be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flowprep.errors import FlowprepError
from flowprep.flow.base import AUTO_ORDER, uses_gpu
from flowprep.run.executors import try_engine
from flowprep.run.machine import installed_versions
from flowprep.storage import Place, RemotePath


@dataclass(frozen=True, kw_only=True)
class Node:
    """A machine of the cluster that is there now, and all that it has."""

    id: str
    name: str
    address: str
    cpus: int
    gpus: int
    is_ours: bool = False  # this process runs there

    def __str__(self) -> str:
        return f"{self.name} ({self.address})"


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a node must have: an engine, the source, and the folder of the dataset.

    `token` is a file in that folder with `word` in it, in object storage only a file; None when
    nothing will be written.
    """

    engine: str
    params: dict[str, Any]
    root: Place
    token: Place | None = None
    word: bytes = b""

    @property
    def needs_gpu(self) -> bool:
        return uses_gpu(self.engine)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a node has. Without its engine it says why in `problem`."""

    versions: Mapping[str, str]
    engine: str = ""
    build: str = ""
    problem: str = ""
    sees_source: bool = True
    sees_out: bool = True


def examine(question: Question) -> Report:
    """Asked on the node."""
    engine = build = problem = ""
    sees_source = sees_out = True
    try:
        sees_source = question.root.exists()
        sees_out = question.token is None or _has(question.token, question.word)
        engine, build = try_engine(question.engine, question.params)
    except FlowprepError as error:
        problem = error.message
    except OSError as error:
        problem = f"{error.filename}: {error.strerror}"
    except Exception as error:  # noqa: BLE001 - a broken driver may raise anything
        problem = f"engine {question.engine!r}: {type(error).__name__}: {error}"
    return Report(
        versions=installed_versions(),
        engine=engine,
        build=build,
        problem=problem,
        sees_source=sees_source,
        sees_out=sees_out,
    )


def _has(path: Place, data: bytes) -> bool:
    if isinstance(path, RemotePath):
        return path.is_file()
    try:
        return path.read_bytes() == data
    except OSError:
        return False


@dataclass(frozen=True, kw_only=True)
class Common:
    """What all nodes in use have in common, as it is recorded of the samples they make."""

    engine: str
    build: str  # of the engine
    versions: Mapping[str, str]

    def objection(self, report: Report) -> str:
        """Why a node with this report is not used, "" when it is."""
        if missing := unseen(report):
            return missing
        if report.engine != self.engine:
            return report.problem or f"its engine is {report.engine}, not {self.engine}"
        if _bare(report.build) != self.build:
            return f"its engine is {_bare(report.build)}, that of the others {self.build}"
        names = sorted(self.versions.keys() | report.versions.keys())
        return ", ".join(
            f"it has {name} {report.versions.get(name, 'none')}, "
            f"the others {self.versions.get(name, 'none')}"
            for name in names
            if report.versions.get(name) != self.versions.get(name)
        )


def unseen(report: Report) -> str:
    """What a node does not see of what it must."""
    missing = [
        flag
        for flag, sees in (("--src", report.sees_source), ("--out", report.sees_out))
        if not sees
    ]
    return f"it does not see {' and '.join(missing)} as this machine does" if missing else ""


def _bare(build: str) -> str:
    """Without what `auto` says of other engines."""
    return build.partition(";")[0]


def common(reports: Iterable[tuple[Node, Report]], engine: str) -> Common | None:
    """What to agree on: with `auto` the best engine there is; of several builds or versions those
    that most cores have, and of these this machine's. None when no node has an engine.
    """
    able = [(node, report) for node, report in reports if report.engine and not unseen(report)]
    if not able:
        return None
    if engine == "auto":
        engine = min((r.engine for _, r in able), key=AUTO_ORDER.index)
    cores: Counter[tuple[Any, ...]] = Counter()
    ours = tuple(installed_versions().items())
    for node, report in able:
        if report.engine == engine:
            has = tuple(report.versions.items())
            cores[has == ours, _bare(report.build), has] += max(1, node.cpus)
    (_, build, versions), _ = max(cores.items(), key=lambda item: (item[1], item[0]))
    return Common(engine=engine, build=build, versions=dict(versions))
