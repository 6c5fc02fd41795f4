"""The commands that take long, run for real: training, whole extractions, the demo."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from pages import ROOT, Line, lines
from rules import adapted, in_sandbox, parse_train, parsed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SMALL = ("--epochs", "1", "--batch", "4", "--frames", "8", "--crop", "32")
SMALLER = {
    "train.teacher": SMALL,
    "train.distill": SMALL,
    "train.evaluate": ("--clips", "1", "--crops", "1"),
    "train.probe": ("--steps", "2", "--batch", "2"),
}
"""Added to the commands of the pages, besides --width 0.25 where a network is made."""
PROCESSES = "2"
"""Instead of the number that torchrun is shown with."""
WRITES_RUN = ("train.teacher", "train.distill")
LONG = ("extract", "demo", "bench")
CLASSES, VIDEOS_EACH = ("left", "right"), 8

TRAIN = [line for line in lines() if line.words[0] == "torchrun" or line.words[1] == "-m"]
FLOWPREP = [line for line in lines() if line.words[0] == "flowprep" and line.words[1] in LONG]


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
    make_video: Callable[..., Path],
    cli: Callable[..., Result],
) -> Path:
    """shards/ with enough videos to hold some out, runs/teacher and runs/d3d, video.mp4."""
    folder = tmp_path_factory.mktemp("trained")
    make_video(folder / "video.mp4", n_frames=16)
    for number in range(VIDEOS_EACH):
        for name in CLASSES:
            make_video(folder / "videos" / name / f"{number}.mp4", n_frames=16)
    fast = ("--executor", "local", "--engine", "constant", "--size", "native", "--quiet")
    made = cli("extract", "--src", folder / "videos", "--out", folder / "shards", *fast)
    assert made.exit_code == 0, made.output
    for module in WRITES_RUN:
        run_train(module, ["--shards", "shards"], folder)
    return folder


def run_train(
    module: str, arguments: list[str], folder: Path, launcher: tuple[str, ...] = ()
) -> None:
    more = list(SMALLER.get(module, ()))
    if module in WRITES_RUN:
        more += ["--device", "cpu", *(("--width", "0.25") if "--width" not in arguments else ())]
    start = [sys.executable, "-m", *(launcher or (module,))]
    done = subprocess.run(
        [*start, *arguments, *more],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("line", TRAIN, ids=lambda line: line.text)
def test_training_runs(line: Line, trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sandbox"
    shutil.copytree(trained, folder)
    words = ["shards" if word.endswith("shards/") else word for word in line.words]
    launcher: tuple[str, ...] = ()
    if words[0] == "torchrun":
        at = words.index("--")
        count = words.index("--nproc-per-node") + 1
        launched = [*words[1:count], PROCESSES, *words[count + 1 : at]]
        launcher = ("torch.distributed.run", *launched, "--")
        module, arguments = words[at - 1], words[at + 1 :]
    else:
        module, arguments = words[2], words[3:]
    if module in WRITES_RUN:
        shutil.rmtree(folder / parse_train(module, arguments).run, ignore_errors=True)
    run_train(module, arguments, folder, launcher)


@pytest.mark.parametrize("line", FLOWPREP, ids=lambda line: line.text)
def test_it_runs(line: Line, cli: Callable[..., Result], sandbox: Path) -> None:
    """What it writes is whole."""
    words = in_sandbox(line.words[1:])
    out = Path("demo/shards" if words[0] == "demo" else "shards")
    if "--retry-failed" not in words and words[0] != "bench":
        shutil.rmtree(out, ignore_errors=True)
    words = adapted(words, parsed(words)) + (["--seconds", "0.2"] if words[0] == "bench" else [])
    result = cli(*words)
    assert result.exit_code == 0, result.output
    if "--dry-run" not in words:
        assert cli("verify", out, "--deep").exit_code == 0
