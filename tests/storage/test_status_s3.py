"""flowprep status of a dataset in a bucket, against what another library finds there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HELD_BACK = str(Path(__file__).parents[1] / "run" / "held_back")
MOST_REQUESTS = 40
"""Of a dataset with fewer than 1000 objects: twice as many as it takes."""


@pytest.fixture
def held(s3: Any, make_video: Callable[..., Path], tmp_path: Path) -> Iterator[Any]:
    """A run into s3://data/held that waits at one of its three videos."""
    for number, name in enumerate(["a.mp4", "b.mp4", "hold.mp4"]):
        make_video(tmp_path / "src" / name, n_frames=7 - number)
    places = ["--src", str(tmp_path / "src"), "--out", "s3://data/held"]
    options = ["--executor", "local", "--workers", "1", "--engine", "constant", "--size", "32"]
    process = subprocess.Popen(
        [sys.executable, "-m", "flowprep", "extract", *places, *options],
        env=os.environ | s3.env | {"PYTHONPATH": HELD_BACK, "GATE": str(tmp_path / "gate")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _marks(objects: dict[str, bytes]) -> list[Any]:
    names = (n for n in objects if n.startswith("_flowprep/shards/") and n.endswith(".json"))
    return [json.loads(objects[name]) for name in names]


def _is_held(objects: dict[str, bytes]) -> bool:
    beats = [json.loads(data) for name, data in objects.items() if "/worker-" in name]
    return len(_marks(objects)) == 2 and sum(beat["window_clips"] for beat in beats) == 2


def test_a_run_into_a_bucket(s3: Any, held: Any) -> None:
    for _ in range(100):
        if _is_held(s3.objects("data", "held/")):
            break
        time.sleep(0.5)
    done = s3.flowprep("status", "s3://data/held", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["state"]) == (0, "running"), done.stderr
    assert told["run"]["pid"] == held.pid
    assert told["shards"] == {"done": 2, "planned": 3, "in_work": 1}
    assert (told["clips"]["done"], told["clips"]["planned"], told["clips"]["failed"]) == (2, 3, 0)
    flows = [
        sample["n_flows"] for m in _marks(s3.objects("data", "held/")) for sample in m["samples"]
    ]
    assert sum(worker["window_flows"] for worker in told["workers"]) == sum(flows)
    os.killpg(held.pid, signal.SIGKILL)
    held.wait()
    before = len(s3.requests())
    done = s3.flowprep("status", "s3://data/held", PYTHONPATH=HELD_BACK, GATE="none")
    assert (done.returncode, "interrupted" in done.stdout) == (1, True), done.stderr
    assert 10 < len(s3.requests()) - before < MOST_REQUESTS
