"""flowprep status while a run is on, and after it was killed, against what is counted by hand."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flowprep.run import presence
from flowprep.verify.check import verify

HELD_BACK = str(Path(__file__).parent / "held_back")
FAILURES, TOLD = 3, 1
Tree = Callable[[Path], dict[str, str]]


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "SPARE_S", 0.6)
    monkeypatch.setattr(presence, "LOOK_EVERY_S", 0.1)


@pytest.fixture(scope="module")
def src(tmp_path_factory: pytest.TempPathFactory, video: Callable[..., Path]) -> Path:
    """Two classes; a video that is held back, a broken one, and six others of other lengths."""
    folder = tmp_path_factory.mktemp("held") / "src"
    video(folder / "b" / "hold.mp4", 9, 11)
    (folder / "c" / "broken.mp4").parent.mkdir()
    (folder / "c" / "broken.mp4").write_bytes(b"no video")
    for number in range(6):
        video(folder / "bc"[number % 2] / f"clip{number}.mp4", number, 4 + number)
    return folder


@pytest.fixture
def run(src: Path, extracting: Any) -> Any:
    return extracting(src, options=["--workers", "2"])


@pytest.fixture
def gate(tmp_path: Path) -> dict[str, str]:
    """The environment of a run that is held back until the file GATE is there."""
    return {"PYTHONPATH": HELD_BACK, "GATE": str(tmp_path / "gate")}


@dataclass(frozen=True)
class ByHand:
    """What the files say, read without flowprep."""

    out: Path

    def marks(self) -> list[Any]:
        return [json.loads(p.read_bytes()) for p in self.out.glob("_flowprep/shards/*.json")]

    def plan(self) -> list[Any]:
        rows: list[Any] = pq.read_table(self.out / "_flowprep" / "plan.parquet").to_pylist()
        return rows

    def clips(self) -> int:
        return sum(len(mark["samples"]) + len(mark["failures"]) for mark in self.marks())

    def flows(self) -> int:
        """Computed ones."""
        samples = [sample for mark in self.marks() for sample in mark["samples"]]
        return sum(sample["n_flows"] - sample["identical_pairs"] for sample in samples)

    def beats(self) -> list[Any]:
        found = sorted(self.out.glob("_flowprep/heartbeats/worker-*.json"))
        return [json.loads(path.read_bytes()) for path in found]


def _until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    for _ in range(1500):
        if condition():
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    pytest.fail("it did not come so far")


def _asked(cli: Any, out: Path, code: int) -> Any:
    result = cli("status", out, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture(scope="module")
def held(
    src: Path, extracting: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Any]]:
    """A run of which all is done but the shard that is held back, and all heartbeats tell so."""
    out = tmp_path_factory.mktemp("run") / "out"
    run = extracting(src, options=["--workers", "2"])
    process = run.start(out, PYTHONPATH=HELD_BACK, GATE=str(out.parent / "gate"))
    hand = ByHand(out)

    def is_there() -> bool:
        if len(list(out.glob("_flowprep/shards/*.json"))) < 7:
            return False
        return sum(beat["window_clips"] for beat in hand.beats()) == 7 and len(hand.beats()) == 2

    _until(is_there, process)
    yield out, process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_run_that_is_on(held: Any, cli: Any) -> None:
    out, process = held
    hand, before = ByHand(out), _times(out)
    told = _asked(cli, out, 0)
    assert _times(out) == before
    assert told["state"] == "running"
    assert (told["run"]["pid"], told["run"]["host"]) == (process.pid, socket.gethostname())
    assert (told["run"]["command"], told["problems"], told["next"]) == ("extract", [], "")
    plan, marks = hand.plan(), hand.marks()
    assert told["shards"] == {"done": 7, "planned": len({r["shard"] for r in plan}), "in_work": 1}
    assert (told["clips"]["done"], told["clips"]["planned"]) == (hand.clips(), len(plan))
    assert told["clips"]["failed"] == sum(len(mark["failures"]) for mark in marks) == 1
    (todo,) = [row for row in plan if row["shard"] not in {mark["shard"] for mark in marks}]
    assert todo["path"] == "b/hold.mp4"
    on = [worker for worker in told["workers"] if worker["shard"] == todo["shard"]]
    assert [(w["clips"], w["clips_ended"], w["lost"]) for w in on] == [(1, 0, False)]
    assert [w["lost"] for w in told["workers"]] == [False, False]
    assert {_parent(w["pid"]) for w in told["workers"]} <= {process.pid}
    _rates_are_those_of(told, hand, todo["n_frames"] - 1)
    text = cli("status", out).stdout
    assert re.search(r"running\nrun +flowprep extract of .*, for 00:", text)
    assert re.search(rf"shards +7 of 8 done, 1 in work\nclips +{hand.clips()} of 8 done", text)


def _rates_are_those_of(told: Any, hand: ByHand, n_pairs_left: int) -> None:
    """All was done within the window of the rates."""
    workers = told["workers"]
    assert sum(w["window_flows"] for w in workers) == hand.flows()
    flows_per_s = sum(w["window_flows"] / w["window_s"] for w in workers)
    assert told["flows_per_s"] == pytest.approx(flows_per_s, abs=1e-3)
    assert 0 < flows_per_s < 2 * hand.flows() / min(w["window_s"] for w in workers)
    pairs_per_s = sum(w["window_pairs"] / w["window_s"] for w in workers)
    assert told["left_s"] == pytest.approx(n_pairs_left / pairs_per_s, abs=0.1)


def _times(out: Path) -> dict[str, int]:
    """Of all files that do not beat."""
    names = [path for path in out.rglob("*") if not {"heartbeats", "tmp"} & {*path.parts}]
    files = [path for path in names if path.is_file()]
    return {str(path): path.stat().st_mtime_ns for path in files}


def test_a_worker_that_is_killed_and_the_run_too(held: Any, cli: Any) -> None:
    out, process = held
    assert not [f for f in verify(out) if "heartbeats" in f.file]
    (victim,) = [w for w in _asked(cli, out, 0)["workers"] if w["shard"]]
    os.kill(victim["pid"], signal.SIGKILL)
    hand = ByHand(out)
    _until(lambda: any(b["shard"] and b["pid"] != victim["pid"] for b in hand.beats()), process)
    now, gone = sorted(_asked(cli, out, 0)["workers"], key=lambda w: bool(w["lost"]))
    assert (gone["lost"], gone["pid"], now["lost"]) == (True, victim["pid"], False)
    assert (now["shard"], _parent(now["pid"])) == (victim["shard"], process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    told = _asked(cli, out, TOLD)
    shards = {"done": 7, "planned": 8, "in_work": 0}
    assert (told["state"], told["shards"], told["left_s"]) == ("interrupted", shards, None)
    assert {w["lost"] for w in told["workers"]} == {True}
    assert "run the same command again" in told["next"]
    assert "last sign" in cli("status", out).stdout


def test_the_next_run_cleans_up(whole: Path, cli: Any) -> None:
    assert not (whole / "_flowprep" / "heartbeats").exists()
    assert verify(whole) == []
    told = _asked(cli, whole, 0)
    assert (told["state"], told["run"], told["workers"]) == ("finished", None, [])
    assert (told["clips"]["done"], told["clips"]["failed"]) == (8, 1)
    assert "--retry-failed" in told["next"]


def test_before_there_is_a_plan(run: Any, cli: Any, gate: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with run.start(out, HOLD="probe", **gate) as process:
        _until(lambda: (out / "_flowprep" / "heartbeats" / "run.json").exists(), process)
        told = _asked(cli, out, 0)
        text = cli("status", out).stdout
        os.killpg(process.pid, signal.SIGKILL)
    assert (told["state"], told["shards"]["planned"], told["clips"]["planned"]) == (
        *("running", None), None,
    )  # fmt: skip
    assert "the source is being listed and probed" in text
    assert _asked(cli, out, TOLD)["state"] == "interrupted"


@pytest.fixture(scope="module")
def whole(held: tuple[Path, Any], src: Path, extracting: Any) -> Path:
    """The dataset of the run that was killed, finished by another."""
    out, process = held
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert (out / "_flowprep" / "heartbeats").is_dir()
    return Path(extracting(src, options=["--workers", "1"]).must(out, code=FAILURES))


@pytest.fixture
def finished(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "out"))


@pytest.mark.parametrize("table_is_there", [True, False])
def test_failures_are_counted_with_and_without_the_table(
    table_is_there: bool, finished: Path, cli: Any
) -> None:
    """Of a dataset that lacks a shard. The table is as old as a copy makes it."""
    internal = finished / "_flowprep"
    (internal / "dataset.json").unlink()
    gone = next(m["shard"] for m in ByHand(finished).marks() if not m["failures"])
    (internal / "shards" / f"{gone}.json").unlink()
    if table_is_there:
        os.utime(internal / "failures.parquet", (2e9, 2e9))
    else:
        (internal / "failures.parquet").unlink()
    told = _asked(cli, finished, TOLD)
    assert (told["state"], told["shards"]["done"], told["clips"]["done"]) == ("interrupted", 7, 7)
    assert (told["clips"]["failed"], told["clips"]["shards_not_looked_at"]) == (1, 0)


@pytest.mark.parametrize("name", ["dataset.json", "plan.parquet", "failures.parquet", "mark"])
def test_what_is_damaged_is_named(name: str, finished: Path, cli: Any) -> None:
    internal = finished / "_flowprep"
    path = next(internal.glob("shards/*.json")) if name == "mark" else internal / name
    if name in ("mark", "failures.parquet"):  # of an unfinished one, or dataset.json tells it
        (internal / "dataset.json").unlink()
        (internal / "failures.parquet").touch() if name == "failures.parquet" else None
        os.utime(internal / "failures.parquet", (1, 1))
    path.write_bytes(path.read_bytes()[:-40][40:])
    told = _asked(cli, finished, TOLD)
    assert told["state"] == "damaged"
    assert [path.name in problem for problem in told["problems"]] == [True]
    assert "flowprep verify" in told["next"]


def test_a_mark_that_is_missing_is_named(finished: Path, cli: Any) -> None:
    mark = next(finished.glob("_flowprep/shards/*.json"))
    mark.unlink()
    told = _asked(cli, finished, TOLD)
    assert (told["state"], told["shards"]["done"]) == ("damaged", 7)
    assert mark.stem in told["problems"][0]


def test_no_dataset(tmp_path: Path, cli: Any) -> None:
    result = cli("status", tmp_path)
    assert (result.exit_code, "no flowprep dataset here" in result.stderr) == (2, True)


BEAT = {
    **{"host": "elsewhere", "pid": 7, "number": 1, "next_s": 0.5, "age_s": 60.0},
    **{"command": "extract", "user": "someone"},
}


@dataclass
class Elsewhere:
    """A run on a machine whose clock, or that of the storage, is not ours."""

    out: Path
    ahead_s: float
    number: int = 0

    def beat(self) -> None:
        folder = self.out / "_flowprep" / "heartbeats"
        folder.mkdir(exist_ok=True)
        self.number += 1
        (folder / "new").write_text(json.dumps(BEAT | {"number": self.number}))
        when_s = time.time() + self.ahead_s
        os.utime(folder / "new", (when_s, when_s))
        (folder / "new").rename(folder / "run.json")

    def beat_on(self, stop: threading.Event) -> None:
        while not stop.wait(0.3):
            self.beat()


@pytest.mark.parametrize("ahead_s", [-400, 400])
def test_a_clock_that_is_wrong(ahead_s: float, finished: Path, cli: Any) -> None:
    (finished / "_flowprep" / "dataset.json").unlink()
    run, stop = Elsewhere(finished, ahead_s), threading.Event()
    run.beat()
    beating = threading.Thread(target=run.beat_on, args=(stop,))
    beating.start()
    on = cli("status", finished)
    stop.set()
    beating.join()
    assert (on.exit_code, "listening" in on.stderr) == (0, True)
    assert "flowprep extract of someone on elsewhere, process 7" in on.stdout
    assert _asked(cli, finished, TOLD)["state"] == "interrupted"


@pytest.mark.parametrize(("ahead_s", "state"), [(0, "running"), (-1200, "interrupted")])
def test_a_clock_that_is_right_is_believed_at_once(
    ahead_s: float, state: str, finished: Path, cli: Any
) -> None:
    (finished / "_flowprep" / "dataset.json").unlink()
    Elsewhere(finished, ahead_s).beat()
    result = cli("status", finished)
    assert (f": {state}\n" in result.stdout, result.stderr) == (True, "")


def test_heartbeats_of_strangers(finished: Path, cli: Any) -> None:
    Elsewhere(finished, 0).beat()
    folder = finished / "_flowprep" / "heartbeats"
    os.mkfifo(folder / "worker-0.json")
    (folder / "worker-1.json").symlink_to("/dev/zero")
    (folder / "worker-2.json").write_text("[" * 100_000)
    (folder / "worker-3.json").write_text(json.dumps(BEAT))
    (folder / "run.json").write_text(json.dumps(BEAT | {"age_s": 1e300, "pid": 1 << 200}))
    told = _asked(cli, finished, 0)
    assert (told["state"], told["run"], told["workers"]) == ("finished", None, [])
    assert {f.file for f in verify(finished)} == {
        f"_flowprep/heartbeats/worker-{number}.json" for number in (0, 1)
    }


def test_heartbeats_that_cannot_be_written_cost_nothing(
    src: Path, extracting: Any, gate: dict[str, str], tmp_path: Path, cli: Any
) -> None:
    """A file lies where their folder would go."""
    out = tmp_path / "out"
    (out / "_flowprep").mkdir(parents=True)
    (out / "_flowprep" / "heartbeats").write_text("not a folder")
    run = extracting(src / "b" / "hold.mp4", options=["--workers", "1"])
    with run.start(out, **gate) as process:
        _until(lambda: any(out.glob("_flowprep/tmp/train-*")), process)
        time.sleep(1.2)  # run and worker try again
        Path(gate["GATE"]).touch()
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert said.count("heartbeats cannot be written") == 1
    assert [f.file for f in verify(out)] == ["_flowprep/heartbeats"]
    assert _asked(cli, out, 0)["state"] == "finished"


def _worker_beats(out: Path, shard: str) -> Path:
    """As a worker elsewhere that is on a shard for a minute."""
    on = {"shard": shard, "shard_s": 60.0, "clips": 1, "clips_ended": 0, "clips_failed": 0}
    window = {"window_s": 60.0, "window_clips": 1, "window_flows": 7, "window_pairs": 7}
    who = {name: BEAT[name] for name in ("host", "pid", "number", "next_s", "age_s")}
    path = out / "_flowprep" / "heartbeats" / "worker-3.json"
    path.write_text(json.dumps(who | on | window | {"worker": 3, "pairs_ended": 0}))
    return path


@pytest.mark.parametrize(("behind_s", "is_lost"), [(1, False), (3600, True)])
def test_a_worker_that_falls_silent_is_lost(
    behind_s: float, is_lost: bool, finished: Path, cli: Any
) -> None:
    """Nobody has got its shard instead; both times are those of the storage."""
    Elsewhere(finished, 0).beat()
    beat = _worker_beats(finished, "train-000099")
    os.utime(beat, (time.time() - behind_s,) * 2)
    told = _asked(cli, finished, 0)
    assert [w["lost"] for w in told["workers"]] == [is_lost]
    assert (told["flows_per_s"] > 0, told["shards"]["in_work"]) == (not is_lost, int(not is_lost))


@pytest.mark.parametrize(("marked_ago_s", "n_in_work"), [(0, 0), (1000, 1)])
def test_a_shard_with_a_mark_is_in_work_when_it_is_tried_again(
    marked_ago_s: float, n_in_work: int, finished: Path, cli: Any
) -> None:
    """Otherwise its worker has ended it since its last heartbeat."""
    mark = next(finished.glob("_flowprep/shards/*.json"))
    os.utime(mark, (time.time() - marked_ago_s,) * 2)
    Elsewhere(finished, 0).beat()
    _worker_beats(finished, mark.stem)
    told = _asked(cli, finished, 0)
    assert (told["shards"]["in_work"], told["workers"][0]["shard"]) == (n_in_work, mark.stem)
