"""A second run into a dataset: more videos, repaired videos, changed videos, interruptions."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from flowprep.errors import FlowprepError
from flowprep.shard.index import load_index, load_mark
from flowprep.storage import exclusive
from flowprep.verify.check import verify

Tree = Callable[[Path], dict[str, str]]
Video = Callable[..., Path]
FAILURES = 3


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, video: Video, extracting: Any) -> Path:
    """src: five good videos and a broken one, in two classes; out: their dataset."""
    folder = tmp_path_factory.mktemp("template")
    for number in range(5):
        video(folder / "src" / "bc"[number % 2] / f"clip{number}.mp4", number)
    (folder / "src" / "b" / "broken.mp4").write_bytes(b"no video")
    extracting(folder / "src").must(folder / "out", code=FAILURES)
    return folder


@pytest.fixture
def src(template: Path, tmp_path: Path) -> Path:
    """A source to change. Times of files are copied, so that they count as unchanged."""
    return Path(shutil.copytree(template / "src", tmp_path / "src"))


@pytest.fixture
def run(src: Path, extracting: Any) -> Any:
    return extracting(src, options=["--workers", "2"])


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where a dataset may go."""
    return tmp_path / "out"


@pytest.fixture
def finished(template: Path, out: Path) -> Path:
    """A finished dataset of the source."""
    return Path(shutil.copytree(template / "out", out))


def _shards(files: dict[str, str]) -> dict[str, str]:
    """The tars, .idx files and marks among the files of a dataset."""
    kinds = (".tar", ".idx", ".json")
    return {n: h for n, h in files.items() if n.endswith(kinds) and "dataset.json" not in n}


def _times(out: Path) -> dict[str, int]:
    files = (path for path in out.rglob("*") if path.is_file())
    return {str(path): path.stat().st_mtime_ns for path in files}


def _members(out: Path) -> dict[str, bytes]:
    """Every member of every tar."""
    found = {}
    for path in out.glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                found[member.name] = file.read()
    return found


def _marks(out: Path) -> list[Any]:
    return [load_mark(path) for path in sorted(out.glob("_flowprep/shards/*.json"))]


def _failures(out: Path) -> dict[str, str]:
    """Path of the source -> reason."""
    return {f.path: f.reason for mark in _marks(out) for f in mark.failures}


def test_nothing_to_do_touches_nothing(run: Any, finished: Path, tree: Tree) -> None:
    files, times = tree(finished), _times(finished)
    run.must(finished, code=FAILURES)
    assert tree(finished) == files
    assert _times(finished) == times
    assert not {"_flowprep/tmp", "_flowprep/swap", "_flowprep/lock"} & set(files)


def test_new_videos_become_new_shards(
    run: Any, src: Path, finished: Path, tree: Tree, video: Video
) -> None:
    before, times = _shards(tree(finished)), _times(finished)
    video(src / "a" / "new.mp4", 8)
    run.must(finished, code=FAILURES)
    after = _shards(tree(finished))
    assert before.items() < after.items()
    assert {str(finished / n): times[str(finished / n)] for n in before}.items() <= _times(
        finished
    ).items()
    assert verify(finished, deep=False) == []
    added = [
        row for _, row in load_index(finished / "_flowprep" / "index.parquet") if row.label == "a"
    ]
    assert [(row.path, row.label_index) for row in added] == [("a/new.mp4", 2)]
    assert (finished / "_flowprep" / "classes.txt").read_text() == "b\nc\na\n"


def test_a_video_that_has_gone_keeps_its_sample(
    run: Any, src: Path, finished: Path, tree: Tree
) -> None:
    before = _shards(tree(finished))
    (src / "b" / "clip0.mp4").unlink()
    run.must(finished, code=FAILURES)
    assert _shards(tree(finished)) == before
    assert verify(finished) == []


def test_a_repaired_video_is_retried(
    run: Any, src: Path, finished: Path, tree: Tree, video: Video
) -> None:
    before, healthy = _shards(tree(finished)), _members(finished)
    video(src / "b" / "broken.mp4", 9)
    for path in src.rglob("clip*.mp4"):  # what is finished needs no source
        path.unlink()
    run.must(finished, code=FAILURES)  # not without being told
    assert _shards(tree(finished)) == before
    run.must(finished, "--retry-failed")
    members = _members(finished)
    assert healthy.items() < members.items()
    assert {name.split(".")[0][:6] for name in members.keys() - healthy.keys()} == {"broken"}
    assert (
        sum(before[name] != h for name, h in _shards(tree(finished)).items() if name in before) <= 3
    )
    assert verify(finished, deep=True) == []
    assert _failures(finished) == {}


def test_a_retry_of_what_is_still_broken_changes_nothing(run: Any, out: Path, tree: Tree) -> None:
    run.must(out, code=FAILURES)
    files = tree(out)
    run.must(out, "--retry-failed", code=FAILURES)
    assert tree(out) == files


def test_a_source_that_changes_after_its_shard_was_committed(
    run: Any, src: Path, finished: Path, tree: Tree, video: Video
) -> None:
    before = _shards(tree(finished))
    video(src / "b" / "clip0.mp4", 77, 9)
    run.must(finished, code=FAILURES)
    assert _shards(tree(finished)) == before
    assert verify(finished) == []


def test_a_source_that_changes_before_its_shard_is_made(
    run: Any, src: Path, finished: Path, tmp_path: Path, tree: Tree, video: Video
) -> None:
    """What an interrupted run had planned follows the file."""
    committed = next(m for m in _marks(finished) if [r.path for r in m.samples] == ["b/clip0.mp4"])
    (finished / "_flowprep" / "dataset.json").unlink()
    (finished / "_flowprep" / "shards" / f"{committed.shard}.json").unlink()
    video(src / "b" / "clip0.mp4", 77, 9)
    run.must(finished, code=FAILURES)
    made = next(mark for mark in _marks(finished) if mark.shard == committed.shard)
    assert [(row.path, row.n_frames) for row in made.samples] == [("b/clip0.mp4", 9)]
    assert verify(finished, deep=True) == []


def test_a_source_that_changes_while_it_is_extracted(
    src: Path, out: Path, extracting: Any, video: Video
) -> None:
    """Probed as one file, decoded as another: a failure, which a retry mends."""
    run = extracting(src, options=["--workers", "1"])
    with run.start(out) as process:
        plan = out / "_flowprep" / "plan.parquet"
        while not plan.exists() and process.poll() is None:
            time.sleep(0.001)
        for path in src.rglob("clip*.mp4"):
            os.utime(path, ns=(0, 0))
        process.communicate(timeout=60)
    changed = {path for path, reason in _failures(out).items() if reason == "changed"}
    assert changed
    assert verify(out) == []
    run.must(out, "--retry-failed", code=FAILURES)
    assert set(_failures(out)) == {"b/broken.mp4"}
    assert verify(out, deep=True) == []


def test_two_runs_into_one_folder(run: Any, out: Path, tree: Tree) -> None:
    """The second is refused and leaves the first one's work alone."""
    with run.start(out) as first:
        while not (out / "_flowprep" / "tmp").exists() and first.poll() is None:
            time.sleep(0.001)
        second = run.run(out)
        first.communicate(timeout=60)
    assert (first.returncode, second.code) == (FAILURES, 2)
    assert "in use by another flowprep command" in second.said
    assert "Traceback" not in second.said
    assert verify(out) == []
    assert not (out / "_flowprep" / "lock").exists()


def test_a_lock_that_its_holder_has_removed_is_not_taken(tmp_path: Path) -> None:
    """Or a third process would make a new file, lock that, and run at the same time."""
    lock = tmp_path / "lock"

    def removed_meanwhile(*_: object) -> None:
        lock.unlink()

    with (
        mock.patch("fcntl.flock", removed_meanwhile),
        pytest.raises(FlowprepError, match="in use"),
        exclusive(lock, "out"),
    ):
        pytest.fail("got the lock")


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("until", ["_flowprep/tmp", "_flowprep/plan.parquet", "*.tar"])
def test_interrupted_and_run_again(
    until: str, signal_number: int, run: Any, out: Path, tmp_path: Path, tree: Tree
) -> None:
    said = _interrupt(run, out, until, signal_number)
    assert "run the same command again" in said
    left = set(tree(out)) if out.exists() else set()
    assert not {"_flowprep/tmp", "_flowprep/swap", "_flowprep/lock"} & left
    run.must(out, code=FAILURES)
    assert tree(out) == tree(run.must(tmp_path / "undisturbed", code=FAILURES))


def _interrupt(
    run: Any, out: Path, until: str, signal_number: int, again_s: float | None = None
) -> str:
    """Send a signal at that moment, and perhaps another one; returns what the run said."""
    with run.start(out) as process:
        while not any(out.glob(until)) and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal_number)
        if again_s is not None:
            time.sleep(again_s)
            process.send_signal(signal_number)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    return said


def test_what_is_committed_is_indexed_and_told_after_an_interrupt(
    src: Path, out: Path, extracting: Any
) -> None:
    slow = extracting(src, options=["--workers", "1", "--size", "256", "--engine", "reference"])
    said = _interrupt(slow, out, "_flowprep/shards/*.json", signal.SIGTERM)
    marks = [load_mark(path) for path in out.glob("_flowprep/shards/*.json")]
    keys = {row.key for mark in marks for row in mark.samples}
    assert 1 <= len(keys) < 5
    assert {row.key for _, row in load_index(out / "_flowprep" / "index.parquet")} == keys
    assert [finding.code for finding in verify(out)] == ["incomplete"]
    (line,) = (out / "_flowprep" / "runs.jsonl").read_text().splitlines()
    assert json.loads(line)["ended"] == "interrupted"
    assert re.search(rf"samples +│ {len(keys)} ", said), said
    assert "run the same command again: it goes on where it stopped" in said


@pytest.mark.parametrize("again_s", [0.0, 0.02, 0.1])
def test_interrupted_twice_it_ends_at_once_and_leaves_nothing_half_written(
    again_s: float, run: Any, out: Path, tmp_path: Path, tree: Tree
) -> None:
    _interrupt(run, out, "*.tar", signal.SIGINT, again_s)
    run.must(out, code=FAILURES)
    assert tree(out) == tree(run.must(tmp_path / "undisturbed", code=FAILURES))


@pytest.fixture
def ray_env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tempfile.mkdtemp(prefix="fp", dir="/tmp")  # short: Ray puts sockets into it
    yield {"RAY_TMPDIR": folder}
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(
    "signal_number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_ray_interrupted_gives_the_bytes_of_local(
    signal_number: int,
    src: Path,
    tmp_path: Path,
    extracting: Any,
    tree: Tree,
    ray_env: dict[str, str],
) -> None:
    with_ray = extracting(src, "ray", ["--workers", "2"], ray_env)
    local = extracting(src, options=["--workers", "1"]).must(tmp_path / "local", code=FAILURES)
    _interrupt(with_ray, tmp_path / "ray", "*.tar", signal_number)
    with_ray.must(tmp_path / "ray", code=FAILURES)
    assert tree(tmp_path / "ray") == tree(local)


def test_a_table_that_was_lost_is_made_again(run: Any, finished: Path, tree: Tree) -> None:
    files = tree(finished)
    (finished / "_flowprep" / "index.parquet").write_bytes(b"")
    run.must(finished, code=FAILURES)
    assert tree(finished) == files
    (finished / "_flowprep" / "manifest.parquet").unlink()
    run.must(finished, code=FAILURES)
    assert verify(finished) == []


@pytest.mark.parametrize("name", ["plan.parquet", "shards/train-000000.json"])
def test_a_damaged_plan_or_mark_is_an_error_that_says_what_to_do(
    name: str, run: Any, finished: Path
) -> None:
    path = finished / "_flowprep" / name
    path.write_bytes(path.read_bytes()[:-10])
    ended = run.run(finished, "--retry-failed")
    assert (ended.code, "Traceback" in ended.said) == (2, False)
    assert path.name in ended.said
    assert "Hint:" in ended.said


def test_a_refused_run_leaves_a_finished_dataset_whole(
    run: Any, src: Path, finished: Path, video: Video
) -> None:
    """Also when it has found new videos before it is refused."""
    video(src / "b" / "new.mp4", 4)
    assert run.run(finished, "--bound", "10").code == 2
    assert verify(finished) == []


def test_told_as_json(run: Any, out: Path) -> None:
    ended = run.run(out, "--log-json")
    events = [json.loads(line) for line in ended.said.splitlines() if line.startswith("{")]
    assert events[-1]["samples"] + events[-1]["failures"] == events[-1]["planned"] == 6
