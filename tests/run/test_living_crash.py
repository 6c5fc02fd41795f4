"""A relabel or a removal that is killed anywhere is ended by whatever command comes next."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flowprep.verify.check import verify

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")

CRASH_POINTS = Path(__file__).parent / "crash_points"
OPTIONS = ["--workers", "1", "--clip-frames", "3", "--max-failures", "1"]
Tree = Callable[[Path], dict[str, str]]


@dataclass(frozen=True)
class Case:
    """A command on a dataset, what the dataset is before and after, and what may come next."""

    start: Path
    run: Any  # starts the command
    next: dict[str, Callable[[Path], Any]]  # commands that end it
    more: tuple[str, ...]
    tree: Tree
    states: list[dict[str, str]] = field(default_factory=list)

    def measure(self, folder: Path) -> list[str]:
        """The points that the command passes; `states` gets what is before and after."""
        out, log = self.copy(folder / "points"), folder / "points.log"
        self.states[:] = [self.tree(out)]
        ended = self.run.run(out, *self.more, **_crash_env(out, log=log))
        assert ended.code == 0, ended.said
        assert verify(out, deep=True) == []
        self.states.append(self.tree(out))
        return list(dict.fromkeys(log.read_text().splitlines()))

    def copy(self, out: Path) -> Path:
        return Path(shutil.copytree(self.start, out))

    def kill_at(self, folder: Path, point: str, then: str) -> None:
        name = re.sub(r"[^a-z0-9]+", "-", f"{point} {then}")
        out, flag = self.copy(folder / name), folder / f"{name}.flag"
        killed = self.run.run(out, *self.more, **_crash_env(out, at=point, flag=flag))
        assert (killed.code, flag.exists()) == (-signal.SIGKILL, True), killed.said
        before, after = self.states
        found = {n: h for n, h in self.tree(out).items() if "/tmp" not in n and n not in LEFT}
        if not verify_quietly(out):
            assert found in (before, after), f"{point}: whole, but neither as before nor as after"
        ended = self.next[then](out)
        assert ended.code == 0, f"{point}, {then}: {ended.said}"
        # a change that was not decided is done by the same command only
        expected = [after] if then == "same" or "pending" in str(sorted(found)) else [before, after]
        wrong = [_differing(self.tree(out), state) for state in expected]
        assert [] in wrong, f"{point}, {then}: {wrong}"
        shutil.rmtree(out)


LEFT = {"_flowprep/lock", "_flowprep/swap"}


def verify_quietly(out: Path) -> list[Any]:
    """Findings, but for what is only left over from a killed process."""
    findings = verify(out)
    rest = ("_flowprep/tmp/", "_flowprep/lock")
    return [f for f in findings if not f.file.startswith(rest)]


def _differing(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    return sorted(n for n in found | expected if found.get(n) != expected.get(n))


def _crash_env(out: Path, **values: Path | str) -> dict[str, str]:
    named = {f"CRASH_{name.upper()}": str(value) for name, value in values.items()}
    return {"PYTHONPATH": str(CRASH_POINTS), "CRASH_OUT": str(out), **named}


@pytest.fixture(scope="module")
def start(
    tmp_path_factory: pytest.TempPathFactory, video: Callable[..., Path], extracting: Any
) -> Path:
    """Twelve clips and a failure in eight shards; the videos lie beside it."""
    folder = tmp_path_factory.mktemp("living-crash")
    for number in range(6):
        video(folder / "src" / "ab"[number % 2] / f"clip{number}.mp4", number, 6)
    (folder / "src" / "b" / "broken.mp4").write_bytes(b"no video")
    return Path(extracting(folder / "src", options=OPTIONS).must(folder / "out"))


@pytest.fixture(scope="module")
def make_case(start: Path, tree: Tree, running: Any, extracting: Any, repairing: Any) -> Any:
    """Cases of a removal, and of a relabel without and with --cls."""
    table = start.parent / "table.csv"
    table.write_text("path,label\na/clip0.mp4,b\nb/clip1.mp4,new\n")
    arguments = {
        "remove": tuple(word for name in _some_of_each(start) for word in ("--key", name)),
        "relabel": (str(table),),
        "relabel --cls": (str(table), "--cls"),
    }
    extract = extracting(start.parent / "src", options=OPTIONS)
    repair = repairing(start.parent / "src", options=["--workers", "1"])

    def make(name: str) -> Case:
        run, more = running(name.split()[0]), arguments[name]
        ends = {
            "same": lambda out: run.run(out, *more),
            "repair": repair.run,
            "extract": extract.run,
        }
        return Case(start, run, ends, more, tree)

    return make


def _some_of_each(out: Path) -> list[str]:
    """A sample of a shard with two, the one of a shard with one, and a failure."""
    keys: dict[str, list[str]] = {}
    for row in pq.read_table(out / "_flowprep" / "index.parquet").to_pylist():
        keys.setdefault(row["shard"], []).append(row["key"])
    failed = pq.read_table(out / "_flowprep" / "failures.parquet").to_pylist()[0]
    pure = [found for shard, found in sorted(keys.items()) if shard != failed["shard"]]
    chosen = [next(found for found in pure if len(found) == n)[0] for n in (2, 1)]
    return [*chosen, failed["path"]]


@pytest.mark.parametrize(
    ("name", "pattern", "then"),
    [
        ("remove", r"replace\|after\|.*swap/", "extract"),
        pytest.param("relabel --cls", r"\|.*train-\d+.tar", "same", marks=pytest.mark.slow),
    ],
)
def test_killed_between_the_steps(
    name: str, pattern: str, then: str, make_case: Any, tmp_path: Path
) -> None:
    case = make_case(name)
    points = case.measure(tmp_path)
    case.kill_at(tmp_path, next(p for p in points if re.search(pattern, p)), then)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["remove", "relabel", "relabel --cls"])
def test_killed_at_every_point(name: str, make_case: Any, tmp_path: Path) -> None:
    """Ended by the same command, and by verify --repair or extract."""
    case = make_case(name)
    points = case.measure(tmp_path)
    others = dict(zip(points, cycle(["repair", "extract"])))
    steps = [(p, then) for p in points for then in ("same", others[p])]
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(case.kill_at, tmp_path, *step) for step in steps]:
            done.result()
    print(f"{name}: killed at {len(points)} points, ended in {len(steps)} ways")  # noqa: T201
