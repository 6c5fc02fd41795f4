"""How many workers and threads a run gets."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from flowprep.config import Settings
from flowprep.run.executors import Resources, _specs


@pytest.mark.parametrize(
    ("n_jobs", "cpus", "resources", "threads"),
    [
        (100, 8, Resources(), [1] * 8),
        (4, 8, Resources(), [2, 2, 2, 2]),
        (3, 8, Resources(), [3, 3, 2]),
        (9, 16, Resources(), [2] * 7 + [1] * 2),
        (1, 8, Resources(), [8]),
        (0, 8, Resources(), [8]),
        (1, 8, Resources(workers=1), [1]),
        (3, 8, Resources(workers=4), [1] * 3),
        (9, 4, Resources(), [1] * 4),
    ],
)
def test_cores_that_no_job_needs_become_threads(
    n_jobs: int, cpus: int, resources: Resources, threads: list[int]
) -> None:
    specs = _specs(resources, Settings(engine="cpu"), n_jobs, cpus, [None])
    assert [spec.threads for spec in specs] == threads


def test_workers_of_a_gpu_share_all_cores() -> None:
    specs = _specs(Resources(workers_per_gpu=2), Settings(engine="opencv-cuda"), 9, 16, [0, 1])
    assert [(spec.device, spec.threads) for spec in specs] == [(0, 4), (1, 4), (0, 4), (1, 4)]


def test_threads_change_no_byte_of_a_shard(
    tmp_path: Path, make_video: Any, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_video(tmp_path / "videos" / "a.mp4", n_frames=24)
    digests = []
    for cpus in (1, 3):
        monkeypatch.setattr(Resources, "cpus", cpus)
        out = tmp_path / f"out-{cpus}"
        options = ("--executor", "local", "--engine", "cpu", "--size", "native")
        done = cli("extract", "--src", tmp_path / "videos", "--out", out, *options)
        assert done.exit_code == 0, done.output
        (tar,) = out.glob("*.tar")
        digests.append(hashlib.sha256(tar.read_bytes()).hexdigest())
    assert digests[0] == digests[1]
