"""Which nodes of a cluster are used, and how many workers there are as nodes come and go."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowprep.config import Settings
from flowprep.run import crew, hello
from flowprep.run.crew import Crew
from flowprep.run.executors import Berth, Resources, node_berths
from flowprep.run.machine import installed_versions
from flowprep.run.nodes import Node, Question, Report, common
from flowprep.run.pool import Died, Done, Message, Ready
from flowprep.run.roster import Roster

PACKAGE = Path(hello.__file__).parents[1]


def node(name: str, cpus: int = 2, gpus: int = 0) -> Node:
    return Node(id=f"id-{name}", name=name, address="10.0.0.9", cpus=cpus, gpus=gpus)


def report(engine: str = "cpu", build: str = "LLVM 20", **more: Any) -> Report:
    return Report(**{"versions": installed_versions(), "engine": engine, "build": build, **more})


class Cloud:
    """Nodes that come and go; each answers at once with its report, or with what it lacks."""

    def __init__(self, **answers: Report | str) -> None:
        self.there: dict[str, tuple[Node, Report | str]] = {}
        self.with_gpu: dict[str, bool] = {}
        self._asked: list[str] = []
        for name, answer in answers.items():
            self.add(node(name), answer)

    def add(self, new: Node, answer: Report | str) -> None:
        self.there[new.id] = (new, answer)

    def remove(self, name: str) -> None:
        del self.there[f"id-{name}"]

    def nodes(self) -> list[Node]:
        return [one for one, _ in self.there.values()]

    def ask(self, node: Node, question: bytes, with_gpu: bool) -> None:
        self._asked.append(node.id)
        self.with_gpu[node.name] = with_gpu

    def answers(self) -> Iterator[tuple[str, str, Any]]:
        asked, self._asked = self._asked, []
        for node_id in asked:
            answer = self.there[node_id][1]
            yield (node_id, answer, None) if isinstance(answer, str) else (node_id, "", answer)


def roster_of(cloud: Cloud, told: list[str], engine: str = "cpu") -> Roster:
    question = Question(engine=engine, params={}, root=Path("src"))
    roster = Roster(cloud.nodes, cloud, question, told.append)
    roster.look()
    roster.agree()
    return roster


def names(roster: Roster) -> list[str]:
    return [node.name for node in roster.usable]


# --- nodes ------------------------------------------------------------------------------------


def test_a_node_with_something_else_is_named_and_left_out() -> None:
    told: list[str] = []
    ours = installed_versions()
    cloud = Cloud(
        a=report(),
        b=report(),
        build=report(build="LLVM 19"),
        av=report(versions=ours | {"av": "1.0"}),
        blind=report(sees_source=False),
        missing=report(engine="", build="", problem="engine 'cpu' cannot run here"),
        old="it has another flowprep: 0.0.1, code 123",
    )
    assert names(roster_of(cloud, told)) == ["a", "b"]
    assert len(told) == 5
    for name, what in {
        "build": "LLVM 19, that of the others LLVM 20",
        "av": f"it has av 1.0, the others {ours['av']}",
        "blind": "does not see --src",
        "missing": "engine 'cpu' cannot run here",
        "old": "another flowprep: 0.0.1",
    }.items():
        assert any(f"node {name} (10.0.0.9) is not used: " in t and what in t for t in told), name


def test_a_node_that_comes_later_is_held_to_the_same() -> None:
    told: list[str] = []
    cloud = Cloud(a=report())
    roster = roster_of(cloud, told)
    cloud.add(node("b"), report(build="LLVM 19"))
    cloud.add(node("c"), report())
    roster.look()
    assert names(roster) == ["a", "c"]
    assert told == [
        "node b (10.0.0.9) is not used: its engine is LLVM 19, that of the others LLVM 20"
    ]


def test_auto_takes_the_best_engine_of_the_cluster_and_only_nodes_that_have_it() -> None:
    told: list[str] = []
    cloud = Cloud(a=report(), b=report())
    cloud.add(node("g", 8, 1), report("cuda", "sm_90"))
    roster = roster_of(cloud, told, "auto")
    assert roster.common is not None
    assert (roster.common.engine, names(roster)) == ("cuda", ["g"])
    assert cloud.with_gpu == {"a": False, "b": False, "g": True}
    cloud.add(node("late"), report())
    roster.look()
    assert names(roster) == ["g"]
    assert "late" not in cloud.with_gpu  # there is nothing to ask a machine without a GPU
    assert roster.objections["id-late"] == "it has no GPU"


def test_what_most_cores_have_is_what_is_agreed_on() -> None:
    other = installed_versions() | {"av": "1.0"}
    some = [(node("a", 8), report(versions=other)), (node("b"), report()), (node("c"), report())]
    found = common(some, "cpu")
    assert found is not None
    assert found.versions == other
    found = common([*some[1:], (node("a", 4), report(versions=other))], "cpu")
    assert found is not None
    assert found.versions == installed_versions()
    assert common([(node("a"), report(engine="", build=""))], "auto") is None


@pytest.mark.parametrize(
    ("cpus", "gpus", "options", "shares", "threads"),
    [
        (4, 0, {}, [], 0),
        (8, 1, {}, [0.25] * 4, 2),
        (2, 1, {}, [0.5] * 2, 1),
        (1, 1, {}, [1.0], 1),  # more would have no core to run on
        (64, 2, {"workers_per_gpu": 3}, [1 / 3] * 6, 10),
    ],
)
def test_a_node_with_gpus_has_room_by_its_own_cores(
    cpus: int, gpus: int, options: dict[str, int], shares: list[float], threads: int
) -> None:
    found = node_berths(Resources(**options), Settings(engine="cuda"), "id", cpus, gpus)  # type: ignore[arg-type]
    assert [berth.gpu_share for berth in found] == shares
    assert {berth.start.args[0].threads for berth in found} <= {threads}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "environment", "address"),
    [
        ({}, "", ""),
        ({}, "10.0.0.1:6379", "10.0.0.1:6379"),
        ({"ray_address": "auto"}, "10.0.0.1:6379", "auto"),
        ({"ray_address": "local"}, "10.0.0.1:6379", ""),
        ({}, "local", ""),
        ({"executor": "local"}, "10.0.0.1:6379", ""),
    ],
)
def test_a_cluster_is_joined_where_the_user_or_a_job_of_ray_names_one(
    options: dict[str, str], environment: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", environment)
    assert Resources(**options).address == address  # type: ignore[arg-type]


# --- workers ----------------------------------------------------------------------------------


class Workers:
    """Those that are started are ready in the next moment, unless their node is `busy`."""

    def __init__(self) -> None:
        self.nodes: dict[int, str] = {}  # of each worker that there is
        self.busy: set[str] = set()
        self.coming: list[tuple[int, Message]] = []
        self._n = 0

    def add(self, berth: Berth) -> int:
        self._n += 1
        self.nodes[self._n] = str(berth.node_id)
        self.restart(self._n)
        return self._n

    def restart(self, worker: int) -> None:
        if self.nodes[worker] not in self.busy:
            self.coming.append((worker, Ready(worker=worker, machine="m")))

    def drop(self, worker: int) -> None:
        del self.nodes[worker]

    def wait(self, timeout_s: float) -> Iterable[tuple[int, Message]]:
        coming, self.coming = self.coming, []
        return coming

    def submit(self, worker: int, job: object) -> None:
        pass

    def kill(self, worker: int) -> None:
        pass

    def shortage(self) -> str:
        return "3 cores free"

    def close(self) -> None:
        pass

    @property
    def count(self) -> Counter[str]:
        return Counter(name.removeprefix("id-") for name in self.nodes.values())


def a_core_each(one: Node) -> list[Berth]:
    return [Berth(lambda number: None, node_id=one.id)] * one.cpus


Start = Callable[..., tuple[Crew, Workers, list[str]]]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Start:
    monkeypatch.setattr(crew, "LOOK_EVERY_S", -1.0)

    def started(
        cloud: Cloud, n_jobs: int = 99, n_wanted: int = 0, busy: tuple[str, ...] = ()
    ) -> tuple[Crew, Workers, list[str]]:
        told, workers = list[str](), Workers()
        workers.busy = set(busy)
        roster = roster_of(cloud, told)
        return Crew(workers, roster, a_core_each, n_jobs, n_wanted, told.append), workers, told

    return started


def test_every_core_has_a_worker_as_far_as_there_are_jobs(start: Start) -> None:
    assert start(Cloud(a=report(), b=report()))[1].count == {"a": 2, "b": 2}
    assert start(Cloud(a=report(), b=report()), n_jobs=2)[1].count == {"a": 1, "b": 1}
    assert start(Cloud(a=report(), b=report()), n_wanted=3)[1].count == {"a": 2, "b": 1}
    assert start(Cloud(a=report(), b=report()), n_wanted=64)[1].count == {"a": 2, "b": 2}


def test_a_node_that_comes_gets_workers_while_there_is_work(start: Start) -> None:
    cloud = Cloud(a=report())
    pool, workers, told = start(cloud, n_jobs=4)
    ready = [worker for worker, _ in pool.wait(0)]
    done = Done(worker=ready[0], shard="x", n_samples=1, failures=[])
    workers.coming = [(ready[0], done)]
    list(pool.wait(0))
    cloud.add(node("b"), report())
    list(pool.wait(0))
    assert workers.count == {"a": 2, "b": 1}  # three jobs are left
    assert told == ["node b (10.0.0.9): 1 workers more"]


def test_the_place_of_workers_whose_node_is_gone_is_taken_by_others(start: Start) -> None:
    cloud = Cloud(a=report(), b=report())
    pool, workers, told = start(cloud, n_wanted=2)
    list(pool.wait(0))
    cloud.remove("a")
    heard = list(pool.wait(0))
    died = [message for _, message in heard if isinstance(message, Died)]
    assert [(m.with_node, m.detail) for m in died] == [(True, "its node a (10.0.0.9) is gone")]
    assert workers.count == {"b": 2}
    assert told == [
        "node a (10.0.0.9) is gone: 1 workers fewer",
        "node b (10.0.0.9): 1 workers more",
    ]
    pool.restart(died[0].worker)  # as the schedule does: there is no place for it any more
    assert workers.count == {"b": 2}


def test_workers_that_still_wait_for_room_go_with_their_node_in_silence(start: Start) -> None:
    cloud = Cloud(a=report(), b=report())
    pool, workers, _ = start(cloud, busy=("id-a",))
    assert {workers.nodes[worker] for worker, _ in pool.wait(0)} == {"id-b"}
    cloud.remove("a")
    assert list(pool.wait(0)) == []
    assert workers.count == {"b": 2}


def test_a_worker_that_dies_while_its_node_lives_is_started_again(start: Start) -> None:
    pool, workers, told = start(Cloud(a=report()))
    worker = min(workers.nodes)
    list(pool.wait(0))
    workers.coming = [(worker, Died(worker=worker, detail="SIGSEGV"))]
    ((_, message),) = pool.wait(0)
    assert isinstance(message, Died)
    assert not message.with_node
    pool.restart(worker)
    assert [number for number, _ in pool.wait(0)] == [worker]
    assert told == []


def test_a_cluster_that_is_busy_is_told_once(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "TELL_AFTER_S", -1.0)
    pool, _, told = start(Cloud(a=report()), n_wanted=8, busy=("id-a",))
    list(pool.wait(0))
    list(pool.wait(0))
    (said,) = told
    assert "2 cores" in said
    assert "3 cores free" in said
    assert "asked for: 8" in said


# --- the greeting -----------------------------------------------------------------------------

GREETED = """
import pickle, sys
greet = pickle.loads(bytes.fromhex(sys.argv[1]))
print(greet(sys.argv[2], pickle.dumps((len, ("four",)))))
"""


def greeted(code: str, path: Path) -> str:
    """What a process whose flowprep lies in `path` answers to a function that was sent there."""
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    cloudpickle.register_pickle_by_value(hello)
    sent = cloudpickle.dumps(hello.greet).hex()
    command = [sys.executable, "-c", GREETED, sent, code]
    env = {"PYTHONPATH": str(path), "PATH": ""}
    return subprocess.run(
        command, env=env, cwd=path, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_a_node_is_asked_only_if_it_has_the_same_code(tmp_path: Path) -> None:
    ours = hello.code_of(PACKAGE)
    assert greeted(ours, PACKAGE.parent) == "('', 4)"
    old, broken = tmp_path / "old" / "flowprep", tmp_path / "broken" / "flowprep"
    old.mkdir(parents=True)
    (old / "__init__.py").write_text('__version__ = "0.0.1"\n')
    assert "another flowprep: 0.0.1, code" in greeted(ours, old.parent)
    assert greeted(hello.code_of(old), old.parent) == "('', 4)"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("import no_such_library\n")
    assert "cannot be imported there: No module named 'no_such_library'" in greeted(
        ours, broken.parent
    )


def test_the_hash_is_of_the_code_and_not_of_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    before = hello.code_of(tmp_path)
    for beside in ("__pycache__/a.pyc", "recipes/__init__.py", "recipes/ucf.toml"):
        (tmp_path / beside).parent.mkdir(exist_ok=True)
        (tmp_path / beside).write_text("")
    assert hello.code_of(tmp_path) == before
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    renamed = hello.code_of(tmp_path)
    (tmp_path / "b.py").write_text("x = 2\n")
    assert len({before, renamed, hello.code_of(tmp_path)}) == 3
