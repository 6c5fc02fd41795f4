"""runs.jsonl: what each run took, which no one vouches for and no one needs."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from flowprep.config import Settings
from flowprep.errors import FlowprepError
from flowprep.manifest import Manifest
from flowprep.run import machine
from flowprep.run.executors import Resources
from flowprep.run.prepare import Request, Work
from flowprep.run.progress import make_display
from flowprep.run.runlog import logged
from flowprep.run.schedule import Outcome
from flowprep.shard.layout import Layout
from flowprep.shard.plan import Plan
from flowprep.shard.runs import Run, append_run, load_runs
from flowprep.sources import Source
from flowprep.verify.check import verify

SHARDS = ["--shard-frames", "8"]
RUNS = "_flowprep/runs.jsonl"


@pytest.fixture(scope="module")
def src(tmp_path_factory: pytest.TempPathFactory, video: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("logged")
    for number in range(3):
        video(folder / "ab"[number % 2] / f"clip{number}.mp4", number)
    (folder / "a" / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, src: Path, extracting: Any) -> Path:
    out = tmp_path_factory.mktemp("dataset") / "out"
    return Path(extracting(src, options=["--workers", "2", *SHARDS]).must(out, code=3))


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "out"))


def _lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / RUNS).read_text().splitlines()]


def _marks(out: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in out.glob("_flowprep/shards/*.json")]


def test_a_run_leaves_a_line(made: Path, src: Path) -> None:
    (line,) = _lines(made)
    began = time.mktime(time.strptime(line["started"], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
    assert 0 <= (made / RUNS).stat().st_mtime - began < 120
    counts = ("clips", "failures", "flows", "identical", "ended", "workers", "engine", "executor")
    assert [line[name] for name in counts] == [4, 1, 15, 0, "done", 2, "constant", "local"]
    assert set(line["cpu_s"]) == set(line["wall_s"]) > {"decode", "flow", "encode rgb", "tar"}
    assert 0 < sum(line["cpu_s"].values()) < sum(line["wall_s"].values()) < 2 * line["elapsed_s"]
    assert sum(line["machines"].values()) == 2
    model = next(
        row for row in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in row
    )
    assert " ".join(model.split(":")[1].split()) in next(iter(line["machines"]))
    assert {"flowprep", "av", "numpy"} <= set(line["versions"])


def test_a_second_run_adds_a_line_also_below_one_that_was_cut_short(
    out: Path, src: Path, extracting: Any
) -> None:
    whole = (out / RUNS).read_bytes()
    (out / RUNS).write_bytes(whole + whole[: len(whole) // 2])
    extracting(src, options=["--workers", "1", *SHARDS]).must(out, "--retry-failed", code=3)
    (first, second), damaged = load_runs(out / RUNS)
    assert damaged == 1
    assert (first.clips, first.failures, first.flows, first.workers) == (4, 1, 15, 2)
    neighbours = next(shard for shard in _marks(out) if shard["failures"])["samples"]
    assert (second.clips, second.failures) == (1 + len(neighbours), 1)
    assert (second.flows, second.workers) == (0, 1)


@pytest.fixture
def work() -> Work:
    return Work(
        source=Source(Path("src"), [], []),
        videos=Manifest.of([]),
        plan=Plan.of([]),
        classes=[],
        settings=Settings(engine="constant"),
        versions={"flowprep": "1"},
        committed=set(),
        again={},
    )


@pytest.fixture
def request_of_it(work: Work) -> Request:
    return Request(src="", out="", settings=work.settings, resources=Resources(executor="local"))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "_flowprep").mkdir()
    return Layout(tmp_path)


@pytest.mark.parametrize(
    ("error", "ended"), [(KeyboardInterrupt(), "interrupted"), (FlowprepError("full"), "stopped")]
)
def test_a_run_that_ends_early_leaves_its_line(
    error: BaseException, ended: str, layout: Layout, request_of_it: Request, work: Work
) -> None:
    def make() -> NoReturn:
        raise error

    with pytest.raises(type(error)):
        logged(layout, request_of_it, work, make_display(log_json=True, quiet=True), make)
    assert [line["ended"] for line in _lines(layout.out)] == [ended]


def test_what_cannot_be_written_is_told_and_ends_no_run(
    layout: Layout,
    request_of_it: Request,
    work: Work,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    layout.runs.symlink_to(tmp_path / "elsewhere")
    outcome = Outcome()
    display = make_display(log_json=True, quiet=True)
    assert logged(layout, request_of_it, work, display, lambda: outcome) is outcome
    said = json.loads(capsys.readouterr().out)["text"]
    assert said == "this run is not in runs.jsonl: runs.jsonl is a link, not a file"
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("content", [None, b"", b"{}\n", b"\xff\x00", b"[" * 100_000])
def test_verify_does_not_look_at_it(content: bytes | None, out: Path) -> None:
    if content is None:
        (out / RUNS).unlink()
    else:
        (out / RUNS).write_bytes(content)
    assert verify(out, deep=False) == []


def test_verify_tells_when_it_is_no_file(out: Path) -> None:
    for become in (os.mkdir, os.mkfifo, lambda path: os.symlink("/etc/passwd", path)):
        path = out / RUNS
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        become(path)
        assert {(f.code, f.file) for f in verify(out)} == {("unexpected-file", RUNS)}
        assert load_runs(path) == ([], 0)


def test_the_last_lines_of_a_long_file_are_read(made: Path, tmp_path: Path) -> None:
    (run,), _ = load_runs(made / RUNS)
    path = tmp_path / "runs.jsonl"
    for number in range(5):
        append_run(path, replace(run, clips=number))
    assert [one.clips for one in load_runs(path)[0]] == [0, 1, 2, 3, 4]
    line = path.read_bytes().splitlines(keepends=True)[-1]
    with path.open("ab") as file:
        file.write(line * ((3 << 20) // len(line)))
    runs, damaged = load_runs(path)
    assert damaged == 0
    assert {one.clips for one in runs} == {4}
    assert len(runs) < (1 << 20) // len(line) + 1


def test_a_field_of_another_type_makes_it_no_line(made: Path, tmp_path: Path) -> None:
    (line,) = _lines(made)
    path = tmp_path / "runs.jsonl"
    wrong = [{"clips": "4"}, {"cpu_s": {"flow": "1"}}, {"more": 1}, {"elapsed_s": float("nan")}]
    path.write_text("".join(json.dumps(line | one) + "\n" for one in [*wrong, {}]))
    runs, damaged = load_runs(path)
    assert (len(runs), damaged) == (1, 4)
    assert isinstance(runs[0], Run)


def test_gpus_are_named_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, model in enumerate(["NVIDIA H100 80GB HBM3"] * 2 + ["NVIDIA L4"]):
        folder = tmp_path / "gpus" / f"0000:{number:02d}:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"Model: \t\t {model}\nIRQ:   \t\t 16\n")
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some  CPU\nmodel name\t: no\n")
    monkeypatch.setattr(machine, "GPUS", tmp_path / "gpus")
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    assert machine.describe_machine() == "Some CPU, 2 x NVIDIA H100 80GB HBM3, NVIDIA L4"
