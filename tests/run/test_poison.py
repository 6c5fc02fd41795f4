"""Clips that kill, stop or fill the process that works on them."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowprep.shard.index import load_mark
from flowprep.verify.check import verify

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")

POISON = Path(__file__).parent / "poison"
REASONS = {
    "segfault": "crashed",
    "abort": "crashed",
    "leave": "crashed",
    "hang": "timeout",
    "freeze": "timeout",
    "hog": "out-of-memory",
    "refused": "out-of-memory",
    "killed": "out-of-memory",
}
LIMITS = ["--clip-timeout", "6", "--worker-mem", "0.75", "--workers", "2"]
N_GOOD = 16


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, video: Callable[..., Path]) -> Path:
    """Good videos and poisonous ones; eight shards of three or four clips."""
    folder = tmp_path_factory.mktemp("poison")
    names = [f"good-{i}" for i in range(N_GOOD)] + [f"{name}-0" for name in REASONS] + ["once-0"]
    for seed, name in enumerate(names):
        video(folder / f"{name}.mp4", seed)
    return folder


def members(out: Path) -> dict[str, bytes]:
    """Every member of every tar."""
    found = {}
    for path in out.glob("*.tar"):
        with tarfile.open(path) as tar:
            for info in tar:
                file = tar.extractfile(info)
                assert file is not None
                found[info.name] = file.read()
    return found


def failures(out: Path) -> dict[str, tuple[str, str]]:
    """Path -> (reason, message), as the commit marks have it."""
    marks = [load_mark(path) for path in sorted(out.glob("_flowprep/shards/*.json"))]
    return {f.path: (f.reason, f.message) for mark in marks for f in mark.failures}


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory, extracting: Any) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    return extracting(source, options=LIMITS).must(out)


def check_poisoned(extract: Any, out: Path, undisturbed: Path) -> str:
    """Run over the poisons; everything but them is as if they were not there."""
    ended = extract.run(out, "--log-json", PYTHONPATH=str(POISON), POISON="1")
    assert ended.code == 3, ended.said
    found = failures(out)
    assert {path: reason for path, (reason, _) in found.items()} == {
        f"{name}-0.mp4": reason for name, reason in REASONS.items()
    }
    assert "SIGSEGV" in found["segfault-0.mp4"][1]
    assert "SIGABRT" in found["abort-0.mp4"][1]
    assert "exit code 3" in found["leave-0.mp4"][1]
    whole, left = members(undisturbed), members(out)
    assert {name.split("-")[0] for name in set(whole) - set(left)} == set(REASONS)
    assert all(whole[name] == data for name, data in left.items())
    assert not verify(out, deep=True)
    return ended.said


def test_poisonous_clips_become_failures_and_cost_no_other(
    source: Path, undisturbed: Path, tmp_path: Path, extracting: Any
) -> None:
    said = check_poisoned(extracting(source, options=LIMITS), tmp_path / "out", undisturbed)
    summary = json.loads(said.splitlines()[-1])
    advice = {row["path"]: row["advice"] for row in summary["failed"]}
    assert "--clip-timeout" in advice["hang-0.mp4"]
    assert "--worker-mem" in advice["hog-0.mp4"]


def test_a_mended_poison_becomes_a_sample(
    source: Path, undisturbed: Path, tmp_path: Path, extracting: Any
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for name in ("good-0", "segfault-0", "good-1"):
        (few / f"{name}.mp4").write_bytes((source / f"{name}.mp4").read_bytes())
    extract, out = extracting(few, options=LIMITS), tmp_path / "out"
    assert extract.run(out, PYTHONPATH=str(POISON), POISON="1").code == 3
    assert list(failures(out)) == ["segfault-0.mp4"]
    extract.must(out, "--retry-failed")
    assert not failures(out)
    whole = members(undisturbed)
    assert len(members(out)) == 9
    assert all(whole[name] == data for name, data in members(out).items())


@pytest.mark.parametrize(
    "names",
    [
        ("segfault", "good"),
        pytest.param(("segfault", "hang", "hog", "good"), marks=pytest.mark.slow),
    ],
)
def test_videos_that_poison_the_prober_cost_no_other(
    names: tuple[str, ...], source: Path, tmp_path: Path, extracting: Any
) -> None:
    """A few are probed one by one, many together."""
    some = tmp_path / "some"
    some.mkdir()
    n_good = 1 if len(names) < 4 else 8
    poisons = [f"{name}-0" for name in names if name != "good"]
    for name in [*poisons, *(f"good-{i}" for i in range(n_good))]:
        (some / f"{name}.mp4").write_bytes((source / f"{name}.mp4").read_bytes())
    extract, out = extracting(some, options=LIMITS), tmp_path / "out"
    ended = extract.run(out, PYTHONPATH=str(POISON), POISON="probe")
    assert ended.code == 3, ended.said
    found = {path: reason for path, (reason, _) in failures(out).items()}
    assert found == {f"{name}.mp4": REASONS[name.split("-")[0]] for name in poisons}
    assert len(members(out)) == 3 * n_good
    extract.must(out, "--retry-failed")
    assert not failures(out)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_poisonous_clips_with_ray(
    source: Path, undisturbed: Path, tmp_path: Path, extracting: Any, monkeypatch: Any
) -> None:
    check_poisoned(extracting(source, "ray", LIMITS), tmp_path / "out", undisturbed)
