"""Several Ray nodes on one machine: they are checked, come, and go with shards on them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from flowprep.shard.index import load_mark
from flowprep.shard.runs import load_runs

pytestmark = [pytest.mark.timeout(600)]
slow = pytest.mark.slow

N_VIDEOS = 16
SLOW_ENGINE = ["--engine", "reference", "--size", "native", "--shard-frames", "12"]


@contextmanager
def started(n_cpus: int) -> Iterator[Any]:
    """A cluster of one node with so many cores."""
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="fp", dir="/tmp")  # short: Ray puts sockets into it
    options = {"num_cpus": n_cpus, "include_dashboard": False, "temp_dir": folder}
    made = Cluster(initialize_head=True, head_node_args=options)
    try:
        yield made
    finally:
        made.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without cores, so that all work is on nodes that may go."""
    with started(0) as made:
        yield made


@pytest.fixture
def source(tmp_path: Path, video: Callable[..., Path]) -> Path:
    for seed in range(N_VIDEOS):
        video(tmp_path / "src" / f"{seed}.mp4", seed, n_frames=12)
    return tmp_path / "src"


def n_committed(out: Path) -> int:
    return len(list(out.glob("_flowprep/shards/*.json")))


def n_begun(out: Path) -> int:
    return len(list(out.glob("_flowprep/tmp/train-*")))


def wait_until(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until_s = time.monotonic() + 200
    while not reached():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until_s
        time.sleep(0.02)


def machines(out: Path) -> int:
    """How many workers the last run had."""
    runs, _ = load_runs(out / "_flowprep" / "runs.jsonl")
    return runs[-1].workers


def test_a_cluster_named_by_the_environment_probes_and_makes_what_one_machine_does(
    tmp_path: Path, video: Callable[..., Path], extracting: Any, tree: Callable[..., Any]
) -> None:
    for seed in range(5):  # more than are probed without asking the cluster
        video(tmp_path / "src" / f"{seed}.mp4", seed, n_frames=4)
    (tmp_path / "src" / "broken.mp4").write_bytes(b"no video")
    local = extracting(tmp_path / "src").must(tmp_path / "local", code=3)
    with started(1) as cluster:
        env = {"RAY_ADDRESS": cluster.address, "PYTHONUNBUFFERED": "1"}
        with_ray = extracting(tmp_path / "src", "ray", ["--workers", "9", "--log-json"], env)
        said = with_ray.run(tmp_path / "out")
    assert said.code == 3, said.said
    assert "which RAY_ADDRESS names: 1 nodes with 1 cores" in said.said
    assert tree(tmp_path / "out") == tree(local)


@slow
def test_a_node_is_lost_with_its_shards_and_others_come(
    cluster: Any, source: Path, tmp_path: Path, extracting: Any, tree: Callable[..., Any]
) -> None:
    local = extracting(source, options=SLOW_ENGINE).must(tmp_path / "local")
    out = tmp_path / "out"
    stays, goes = (cluster.add_node(num_cpus=1) for _ in range(2))
    with_ray = extracting(source, "ray", [*SLOW_ENGINE, "--ray-address", cluster.address])
    with with_ray.start(out) as process:
        wait_until(lambda: n_committed(out) >= 1 and n_begun(out) == 2, process)
        cluster.remove_node(goes, allow_graceful=False)
        before = n_committed(out)
        wait_until(lambda: n_committed(out) > before, process)  # the other one goes on alone
        cluster.add_node(num_cpus=2)
        said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said
    assert "its shard is tried again" in said
    assert "2 workers more" in said
    assert machines(out) == 4  # those of the lost node and of the late one as well
    assert tree(out) == tree(local)
    cluster.remove_node(stays)


@slow
def test_a_node_with_another_flowprep_is_named_and_not_used(
    cluster: Any,
    source: Path,
    tmp_path: Path,
    extracting: Any,
    tree: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # Ray lets workers import from where the run was started, too
    local = extracting(source).must(tmp_path / "local")
    code = Path(__file__).parents[2] / "flowprep"
    other = shutil.copytree(code, tmp_path / "other" / "flowprep").parent
    with (other / "flowprep" / "quantize.py").open("a") as file:
        file.write("# a line more\n")
    cluster.add_node(num_cpus=3, env_vars={"PYTHONPATH": str(other)})
    options = ["--ray-address", cluster.address]
    refused = extracting(source, "ray", options).run(tmp_path / "refused")
    assert refused.code == 2
    assert "can be used" in refused.said
    assert "another flowprep" in refused.said
    assert not (tmp_path / "refused").exists()
    cluster.add_node(num_cpus=1)
    ended = extracting(source, "ray", options).run(tmp_path / "out")
    assert ended.code == 0, ended.said
    assert "is not used: it has another flowprep" in ended.said
    assert machines(tmp_path / "out") == 1
    assert tree(tmp_path / "out") == tree(local)


@slow
def test_videos_that_poison_the_prober_on_a_node_cost_no_other(
    cluster: Any, tmp_path: Path, video: Callable[..., Path], extracting: Any
) -> None:
    """Only processes on nodes are poisoned, so that it is they who probe."""
    poisons = {"segfault": "crashed", "hang": "timeout", "hog": "out-of-memory"}
    for seed, name in enumerate([*(f"{p}-0" for p in poisons), *(f"good-{i}" for i in range(40))]):
        video(tmp_path / "src" / f"{name}.mp4", seed, n_frames=3)
    poison = {"PYTHONPATH": str(Path(__file__).parent / "poison"), "POISON": "probe"}
    for _ in range(2):
        cluster.add_node(num_cpus=1, env_vars=poison)
    limits = ["--clip-timeout", "6", "--worker-mem", "0.75", "--ray-address", cluster.address]
    ended = extracting(tmp_path / "src", "ray", limits).run(tmp_path / "out")
    assert ended.code == 3, ended.said
    marks = [load_mark(path) for path in (tmp_path / "out").glob("_flowprep/shards/*.json")]
    failed = {failure.path: failure.reason for mark in marks for failure in mark.failures}
    assert failed == {f"{name}-0.mp4": reason for name, reason in poisons.items()}
    assert sum(len(mark.samples) for mark in marks) == 40


@slow
def test_a_cluster_that_lacks_what_is_asked_for_is_told_and_not_waited_for(
    cluster: Any, source: Path, tmp_path: Path, extracting: Any
) -> None:
    options = ["--ray-address", cluster.address]
    ended = extracting(source, "ray", options).run(tmp_path / "out")
    assert ended.code == 2
    assert f"the Ray cluster at {cluster.address} has no cores" in ended.said
    cluster.add_node(num_cpus=2)
    ended = extracting(source, "ray", [*options, "--engine", "cuda"]).run(tmp_path / "out")
    assert ended.code == 2
    assert "needs GPUs, and the Ray cluster" in ended.said
    assert "1 nodes with 2 cores" in ended.said
    ended = extracting(source, "ray", [*options, "--workers", "16"]).run(tmp_path / "out")
    assert ended.code == 0
    assert "16 workers were asked for, and there is room for 2 now" in ended.said
    assert machines(tmp_path / "out") == 2


@slow
def test_a_cluster_of_another_ray_is_told(source: Path, tmp_path: Path, extracting: Any) -> None:
    with mock.patch("ray.__version__", "2.9.1"), started(1) as cluster:
        ended = extracting(source, "ray", ["--ray-address", cluster.address]).run(tmp_path / "out")
    assert ended.code == 2
    assert "of other versions" in ended.said
    assert "Ray: 2.9.1" in ended.said
    assert "Traceback" not in ended.said


def test_an_address_that_is_none_of_a_cluster_is_told(tmp_path: Path, cli: Any) -> None:
    with mock.patch.dict(os.environ, {"RAY_ADDRESS": "http://127.0.0.1:8265"}):
        done = cli("extract", "--src", Path(__file__).parent, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "ray job submit" in done.output
