"""The command from beginning to end at the scale `tiny`: killed, stopped, and run to the end.

It shows that the parts fit and that nothing is lost. Networks of three steps know nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.motionbench.arms import ARMS, PAIRS
from pipelines.motionbench.bench import Bench
from pipelines.motionbench.page import write_page
from pipelines.motionbench.plan import plan


def command(out: Path, *options: str) -> list[str]:
    program = [sys.executable, "-m", "pipelines.motionbench", "--scale", "tiny", "--engine", "cpu"]
    return [*program, "--device", "cpu", "--out", str(out), *options]


def results(out: Path) -> dict[str, dict[str, Any]]:
    folder = out / "results"
    return {
        path.relative_to(folder).with_suffix("").as_posix(): json.loads(path.read_text())
        for path in folder.rglob("*.json")
    }


def kill_after(n_searches: int, out: Path) -> None:
    with subprocess.Popen(command(out)) as running:
        while len(list(out.glob("results/search/*/*.json"))) < n_searches:
            assert running.poll() is None
            time.sleep(0.1)
        os.kill(running.pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_and_stopped_it_goes_on_to_the_same_page(tmp_path: Path) -> None:
    out = tmp_path / "bench"
    kill_after(2, out)
    kept = results(out)
    stopped = subprocess.run(command(out, "--budget", "20s"), capture_output=True, text=True)
    assert stopped.returncode == 130, stopped.stderr
    assert "run the same command again" in stopped.stderr
    assert "not measured" in (out / "page" / "page.md").read_text()
    subprocess.run(command(out), check=True)

    found = results(out)
    assert kept.items() <= found.items()  # what was done was not done again
    planned = {job.name for job in plan(Bench("tiny", out, "cpu", "cpu"))}
    pairs = {f"C-144/{name}-s1" for name in PAIRS} | {f"P-{n}/two-stream-s1" for n in (96, 144)}
    assert set(found) == planned | pairs | {"gate", "scale"}
    text = (out / "page" / "page.md").read_text()
    assert all(f"| {arm.name} |" in text for arm in ARMS)
    assert "not measured" not in text
    again = write_page(shutil.copytree(out / "results", tmp_path / "copy"), tmp_path / "page")
    for path in (out / "page").iterdir():
        assert (again.parent / path.name).read_bytes() == path.read_bytes(), path.name

    shutil.rmtree(out / "runs" / "C-144" / "d3d-s1")
    (out / "results" / "C-144" / "d3d-s1.json").unlink()
    subprocess.run(command(out), check=True)
    name = "C-144/d3d-s1"
    for what in ("steps", "val", "test", "test_shuffled", "confusion"):
        assert results(out)[name][what] == found[name][what]
