"""Killed anywhere and run again, a dataset has the bytes of a run that nobody disturbed."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from flowprep.shard.index import load_mark

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")

CRASH_POINTS = Path(__file__).parent / "crash_points"
N_MOMENTS = 20
WORKERS_GONE_S = 10.0
Tree = Callable[[Path], dict[str, str]]
RETRY = "--retry-failed"


@dataclass(frozen=True)
class Case:
    """A run to disturb: how it is started, from which state, and what has to come out."""

    extract: Any
    start: Path | None  # a dataset to begin with; None = an empty folder
    more: tuple[str, ...]
    expected: dict[str, str]
    seconds: float
    tree: Tree

    def begin(self, out: Path) -> Path:
        if self.start is not None:
            shutil.copytree(self.start, out)
        return out

    def points(self, folder: Path) -> list[str]:
        """Every point that a run passes, in order."""
        out, log = self.begin(folder / "points"), folder / "points.log"
        ended = self.extract.run(out, *self.more, **_crash_env(out, log=log))
        assert ended.code == 0, ended.said
        assert self.tree(out) == self.expected
        return list(dict.fromkeys(log.read_text().splitlines()))

    def check(self, out: Path, code: int, said: str, what: str) -> None:
        """Run again unless the first run survived, and compare."""
        if code == -signal.SIGKILL:
            again = self.extract.run(out, *self.more)
            code, said = again.code, again.said
        assert code == 0, f"{what}: {said}"
        found = self.tree(out)
        wrong = {n for n in found | self.expected if found.get(n) != self.expected.get(n)}
        assert not wrong, f"{what}: {sorted(wrong)}"


def _crash_env(out: Path, **values: Path | str) -> dict[str, str]:
    named = {f"CRASH_{name.upper()}": str(value) for name, value in values.items()}
    return {"PYTHONPATH": str(CRASH_POINTS), "CRASH_OUT": str(out), **named}


def _measured(
    extract: Any, start: Path | None, more: tuple[str, ...], out: Path, tree: Tree
) -> Case:
    case = Case(extract, start, more, {}, 0.0, tree)
    case.begin(out)
    began = time.monotonic()
    extract.must(out, *more)
    return Case(extract, start, more, tree(out), time.monotonic() - began, tree)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Short, because Ray puts sockets into it."""
    path = Path(tempfile.mkdtemp(prefix="fp", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def source(folder: Path, video: Callable[..., Path]) -> Path:
    """Two shards with one sample, one with a failure and a sample, one with a failure only."""
    src = folder / "src"
    for number, label in enumerate("aba"):
        video(src / "train" / label / f"clip{number}.mp4", number)
    (src / "train" / "b" / "bad.mp4").write_bytes(b"no video")
    (src / "val" / "a").mkdir(parents=True)
    (src / "val" / "a" / "bad too.mp4").write_bytes(b"no video")
    return src


@pytest.fixture(scope="module")
def long_source(folder: Path, video: Callable[..., Path]) -> Path:
    """Enough videos that the probing takes processes of its own."""
    for number in range(12):
        video(folder / "long" / f"clip{number}.mp4", number, 30)
    (folder / "long" / "broken.mp4").write_bytes(b"no video")
    return folder / "long"


@pytest.fixture(scope="module")
def make_case(folder: Path, extracting: Any, tree: Tree) -> Callable[..., Case]:
    """Cases, each measured once."""
    made: dict[tuple[str, Path], Case] = {}

    def make(executor: str, src: Path, workers: int = 1) -> Case:
        if (executor, src) not in made:
            options = ["--workers", str(workers), "--max-failures", "2"]
            env = {"RAY_TMPDIR": str(folder / "ray")}
            run = extracting(src, executor, options, env)
            out = folder / f"{executor}-{src.name}"
            made[executor, src] = _measured(run, None, (), out, tree)
        return made[executor, src]

    return make


@pytest.fixture(scope="module")
def retry_case(
    folder: Path, source: Path, extracting: Any, tree: Tree, video: Callable[..., Path]
) -> Case:
    """A broken file is repaired, and what became samples has no source any more."""
    src, start = folder / "retry", folder / "retry-start"
    shutil.copytree(source, src)
    run = extracting(src, "local", ["--workers", "1", "--max-failures", "2"])
    run.must(start)
    mixed = load_mark(next(start.glob("_flowprep/shards/train-000000.json")))
    assert (len(mixed.failures), len(mixed.samples)) == (1, 1)
    for path in src.rglob("clip*.mp4"):
        path.unlink()
    video(src / "train" / "b" / "bad.mp4", 7)
    case = _measured(run, start, (RETRY,), folder / "retry-expected", tree)
    moved = load_mark(folder / "retry-expected" / "_flowprep" / "shards" / "train-000000.json")
    assert [row.path for row in moved.samples] == ["train/b/bad.mp4", mixed.samples[0].path]
    return case


@pytest.fixture(scope="module")
def repair_case(
    folder: Path,
    source: Path,
    extracting: Any,
    repairing: Any,
    tree: Tree,
    video: Callable[..., Path],
) -> Case:
    """Much is damaged, and what became of the healthy sample of a damaged shard has no source."""
    src, start = folder / "repair", folder / "repair-start"
    for number, label in enumerate("aabbaabbaabb"):
        video(src / label / f"clip{number}.mp4", number)
    (src / "a" / "bad.mp4").write_bytes(b"no video")
    options = ["--workers", "1", "--max-failures", "1", "--clip-frames", "3"]
    extracting(src, "local", options).must(start)
    expected, marks = tree(start), start / "_flowprep" / "shards"
    hit, unmarked, gone, unindexed = _shards_to_damage(marks)
    lost = _not_needed(marks, hit, unmarked, gone)
    _flip_sample(start, hit)
    _flip_sample(start, unmarked)
    for name in (f"{gone}.tar", f"_flowprep/shards/{unmarked}.json", "_flowprep/classes.txt"):
        (start / name).unlink()
    (marks / f"{unindexed}.idx").write_bytes(b"")
    for path in lost:
        (src / path).unlink()
    run = repairing(src, "local", ["--workers", "1"])
    case = _measured(run, start, (), folder / "repair-expected", tree)
    assert case.expected == expected
    return case


def _shards_to_damage(marks: Path) -> list[str]:
    """Four, all of more than one sample and without failures."""
    loaded = [load_mark(path) for path in sorted(marks.glob("*.json"))]
    return [m.shard for m in loaded if len(m.samples) > 1 and not m.failures][:4]


def _not_needed(marks: Path, hit: str, unmarked: str, gone: str) -> set[str]:
    """Videos of samples that stay: nothing that is damaged is made from them."""
    first, second, all_of_it = (
        load_mark(marks / f"{s}.json").samples for s in (hit, unmarked, gone)
    )
    stay = {row.path for row in (*first[1:], *second[1:])}
    lost = stay - {row.path for row in (first[0], second[0], *all_of_it)}
    assert lost
    return lost


def _flip_sample(out: Path, shard: str) -> None:
    """Damage the first sample of a shard."""
    path = out / f"{shard}.tar"
    data = bytearray(path.read_bytes())
    data[1500] ^= 1
    path.write_bytes(data)


def _kill_at_point(case: Case, folder: Path, point: str, with_driver: bool) -> None:
    name = re.sub(r"[^a-z0-9]+", "-", f"{point} {with_driver}")
    out, flag = case.begin(folder / name), folder / f"{name}.flag"
    env = _crash_env(out, at=point, flag=flag) | ({"CRASH_DRIVER": "1"} if with_driver else {})
    ended = case.extract.run(out, *case.more, **env)
    assert flag.exists(), f"{point} was not reached: {ended.said}"
    driver_died = with_driver or point.startswith("driver")
    assert (ended.code == -signal.SIGKILL) == driver_died, f"{point}: {ended.said}"
    case.check(out, ended.code, ended.said, point)
    shutil.rmtree(out)


def _kill_at_points(case: Case, folder: Path, points: list[str], with_driver: bool = False) -> None:
    """Some at the same time. With `with_driver` the driver dies together with its worker."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        work = [pool.submit(_kill_at_point, case, folder, p, with_driver) for p in points]
        for future in work:
            future.result()


def _in_workers(points: list[str]) -> list[str]:
    return [point for point in points if point.startswith("worker")]


def _kind(point: str) -> str:
    """Points of one kind do the same to another shard, sample or table."""
    shardless = re.sub(r"(train|val)-\d{6}|:.*", "", point)
    return re.sub(r"\w+\.(parquet|txt|toml)", "table", shardless)


def _matching(points: list[str], *patterns: str) -> list[str]:
    """The first point that each pattern matches."""
    found = [next((p for p in points if re.search(pattern, p)), pattern) for pattern in patterns]
    assert set(found) <= set(points), set(found) - set(points)
    return found


def test_a_run_passes_every_step_of_a_commit(
    make_case: Callable[..., Case], source: Path, tmp_path: Path
) -> None:
    """The kill matrix would prove nothing if the points were not seen."""
    points = make_case("local", source).points(tmp_path)
    shard = [p for p in points if "train-000000" in p and p.startswith("worker")]
    steps = [p.split("|", 1)[1] for p in shard if "|before|" in p and "addfile" not in p]
    order = [
        "fsync|before|_flowprep/tmp/train-000000/shard.tar",
        "replace|before|train-000000.tar",
        "fsync|before|_flowprep/tmp/train-000000/train-000000.idx",
        "replace|before|_flowprep/shards/train-000000.idx",
        "fsync|before|_flowprep/tmp/train-000000/train-000000.json",
        "replace|before|_flowprep/shards/train-000000.json",
    ]
    assert [s for s in steps if s in order] == order
    assert sum("|torn|" in p for p in shard) == 6  # 4 members, the idx, the mark
    driver = [p for p in points if p.startswith("driver|replace|after|")]
    names = [p.rpartition("/")[2] for p in driver]
    assert names[-3:] == ["index.parquet", "failures.parquet", "dataset.json"]
    assert {"manifest.parquet", "config.toml", "classes.txt", "plan.parquet"} <= set(names)


def test_killed_between_the_steps(
    make_case: Callable[..., Case], source: Path, tmp_path: Path
) -> None:
    case = make_case("local", source)
    some = _matching(
        case.points(tmp_path),
        r"driver\|replace\|before\|.*plan.parquet",
        r"driver\|replace\|after\|.*dataset.json",
        r"worker\|addfile\|torn\|.*:clip",
        r"worker\|replace\|after\|train-000001.tar",
        r"worker\|write_bytes\|torn\|.*train-000001.json",
        r"worker\|replace\|after\|.*train-000002.json",
    )
    _kill_at_points(case, tmp_path, some)


def test_killed_while_a_shard_is_swapped(retry_case: Case, tmp_path: Path) -> None:
    some = _matching(
        retry_case.points(tmp_path),
        r"worker\|replace\|before\|.*swap/",
        r"worker\|unlink\|after\|.*shards/",
        r"worker\|replace\|after\|train-.*.tar",
        r"worker\|replace\|after\|.*shards/.*.json",
        r"worker\|rmdir\|after\|.*swap/",
    )
    _kill_at_points(retry_case, tmp_path, some[1:4], with_driver=True)
    _kill_at_points(retry_case, tmp_path, [some[0], some[2], some[4]])


def test_killed_while_repairing(repair_case: Case, tmp_path: Path) -> None:
    some = _matching(
        repair_case.points(tmp_path),
        r"driver\|replace\|after\|.*shards/.*.json",
        r"worker\|unlink\|after\|.*shards/",
    )
    _kill_at_points(repair_case, tmp_path, some[:1])
    _kill_at_points(repair_case, tmp_path, some[1:], with_driver=True)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_every_point_of_a_repair(repair_case: Case, tmp_path: Path) -> None:
    points = repair_case.points(tmp_path)
    _kill_at_points(repair_case, tmp_path, points)
    _kill_at_points(repair_case, tmp_path, _in_workers(points), with_driver=True)
    _tell(f"repair: killed at {len(points)} points, with the driver at {len(_in_workers(points))}")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_every_point(
    make_case: Callable[..., Case], source: Path, tmp_path: Path
) -> None:
    case = make_case("local", source)
    points = case.points(tmp_path)
    _kill_at_points(case, tmp_path, points)
    _kill_at_points(case, tmp_path, _in_workers(points), with_driver=True)
    _tell(f"local: killed at {len(points)} points, with the driver at {len(_in_workers(points))}")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_every_point_of_a_retry(retry_case: Case, tmp_path: Path) -> None:
    points = retry_case.points(tmp_path)
    _kill_at_points(retry_case, tmp_path, points)
    _kill_at_points(retry_case, tmp_path, _in_workers(points), with_driver=True)
    _tell(f"retry: killed at {len(points)} points, with the driver at {len(_in_workers(points))}")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_every_kind_of_point_with_ray(
    make_case: Callable[..., Case], source: Path, tmp_path: Path
) -> None:
    case = make_case("ray", source)
    points = case.points(tmp_path)
    kinds = {_kind(point): point for point in points}
    _kill_at_points(case, tmp_path, list(kinds.values()))
    _tell(f"ray: killed at {len(kinds)} kinds of points ({len(points)} points)")


def _processes(out: Path) -> dict[int, str]:
    """Processes of the run into `out`: pid -> command line. All inherit its environment."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"CRASH_OUT={out}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(folder.name)] = words.decode(errors="replace")
        except OSError:
            continue
    return found


def _is_worker(command: str) -> bool:
    return "spawn_main" in command or command.startswith(("ray::_Actor", "ray::IDLE"))


def _kill(out: Path, driver: Any, worker: bool, choose: random.Random) -> str:
    """Kill a worker, as soon as there is one, or the driver; "" when the run ended before."""
    while driver.poll() is None:
        victims = [driver.pid]
        if worker:
            victims = [pid for pid, command in _processes(out).items() if _is_worker(command)]
        if victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(choose.choice(victims), signal.SIGKILL)
                return "worker" if worker else "driver"
        time.sleep(0.02)
    return ""


def _gone(out: Path) -> None:
    """Wait until no worker is left. (Ray's own helpers may take a minute to find out.)"""
    began = time.monotonic()
    while left := [command for command in _processes(out).values() if _is_worker(command)]:
        waited_s = time.monotonic() - began
        assert waited_s < WORKERS_GONE_S, f"{waited_s:.1f} s after the driver was killed: {left}"
        time.sleep(0.05)


def _kill_at_moment(case: Case, folder: Path, number: int, moment_s: float) -> str:
    """Kill the driver or a worker after so many seconds, and let the run be finished.

    Every other time the run is started again while the old workers may still be there. A run that
    was faster than the one that was measured is killed a little earlier.
    """
    out, killed = case.begin(folder / f"moment{number}"), ""
    with case.extract.start(out, *case.more, CRASH_OUT=str(out)) as driver:
        time.sleep(moment_s)
        killed = _kill(out, driver, number % 2 == 1, random.Random(number))
        said, _ = driver.communicate(timeout=120)
    if killed and number % 4 == 0:
        _gone(out)
    case.check(out, driver.returncode, said, f"{killed} killed after {moment_s:.2f} s")
    _gone(out)
    shutil.rmtree(out)
    return killed or _kill_at_moment(case, folder, number, 0.9 * moment_s)


def _kill_at_moments(case: Case, folder: Path, n_moments: int) -> Counter[str]:
    moments = [(i + 0.5) / n_moments * case.seconds for i in range(n_moments)]
    return Counter(_kill_at_moment(case, folder, i, at) for i, at in enumerate(moments))


def test_killed_at_two_moments(
    make_case: Callable[..., Case], long_source: Path, tmp_path: Path
) -> None:
    killed = _kill_at_moments(make_case("local", long_source, workers=2), tmp_path, 2)
    assert killed == {"driver": 1, "worker": 1}


def test_ray_killed_between_the_steps(
    make_case: Callable[..., Case], source: Path, folder: Path, tmp_path: Path, extracting: Any
) -> None:
    """Against the bytes of the local executor, so that Ray starts twice only."""
    local = make_case("local", source)
    env = {"RAY_TMPDIR": str(folder / "ray")}
    case = replace(local, extract=extracting(source, "ray", local.extract.options, env))
    for point in (
        "worker|replace|after|train-000001.tar",
        "driver|replace|after|_flowprep/index.parquet",
    ):
        _kill_at_point(case, tmp_path, point, with_driver=False)


@pytest.mark.parametrize("executor", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_workers_end_with_their_driver_in_the_middle_of_a_job(
    executor: str, folder: Path, long_source: Path, tmp_path: Path, extracting: Any
) -> None:
    """The engine would go on for minutes."""
    options = ["--workers", "2", "--engine", "reference", "--size", "256"]
    out, env = tmp_path / "out", {"RAY_TMPDIR": str(folder / "ray")}
    with extracting(long_source, executor, options, env).start(out, CRASH_OUT=str(out)) as driver:
        while not any(out.glob("_flowprep/tmp/train-*")) and driver.poll() is None:
            time.sleep(0.05)
        assert any(map(_is_worker, _processes(out).values()))
        driver.kill()
    assert driver.returncode == -signal.SIGKILL
    _gone(out)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_killed_at_twenty_moments(
    executor: str, make_case: Callable[..., Case], long_source: Path, tmp_path: Path
) -> None:
    case = make_case(executor, long_source, workers=2)
    killed = _kill_at_moments(case, tmp_path, N_MOMENTS)
    _tell(f"{executor}: {dict(killed)} killed over {case.seconds:.1f} s")
    assert sum(killed.values()) == N_MOMENTS


def _tell(line: str) -> None:
    """For `pytest -rA`, which shows what a test printed."""
    print(line)  # noqa: T201
