"""Several Ray nodes on one machine: one is lost with shards on it, another comes."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

N_VIDEOS = 16


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without cores, so that all work is on nodes that may go."""
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="fp", dir="/tmp")  # short: Ray puts sockets into it
    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "temp_dir": folder},
    )
    yield made
    made.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def source(tmp_path: Path, video: Callable[..., Path]) -> Path:
    for seed in range(N_VIDEOS):
        video(tmp_path / "src" / f"{seed}.mp4", seed, n_frames=12)
    return tmp_path / "src"


def n_committed(out: Path) -> int:
    return len(list(out.glob("_flowprep/shards/*.json")))


def n_begun(out: Path) -> int:
    return len(list(out.glob("_flowprep/tmp/train-*")))


def test_a_node_is_lost_with_its_shards_and_another_comes(
    cluster: Any, source: Path, tmp_path: Path, extracting: Any, tree: Callable[..., Any]
) -> None:
    options = ["--engine", "reference", "--size", "native"]
    local = extracting(source, options=options).must(tmp_path / "local")
    out = tmp_path / "out"
    stays, goes = (cluster.add_node(num_cpus=1) for _ in range(2))
    with_ray = extracting(source, "ray", [*options, "--ray-address", cluster.address])
    with with_ray.start(out) as process:
        wait_until(lambda: n_committed(out) >= 1 and n_begun(out) == 2, process)
        cluster.remove_node(goes, allow_graceful=False)
        before = n_committed(out)
        wait_until(lambda: n_committed(out) > before, process)  # the other one goes on alone
        cluster.add_node(num_cpus=1)
        said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said
    assert "its shard is tried again" in said
    assert tree(out) == tree(local)
    cluster.remove_node(stays)


def wait_until(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until_s = time.monotonic() + 200
    while not reached():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until_s
        time.sleep(0.02)


def test_a_cluster_without_cores_is_told_and_not_waited_for_for_ever(
    cluster: Any, source: Path, tmp_path: Path, extracting: Any
) -> None:
    options = ["--ray-address", cluster.address]
    ended = extracting(source, "ray", options, dict(os.environ)).run(tmp_path / "out")
    assert ended.code == 2
    assert "Traceback" not in ended.said
    assert "core" in ended.said
