"""The whole way, as a user goes it: videos, flowprep extract, teacher, student, two-stream.

The data set is easy on purpose: six motions of textures. It shows that the parts fit and that
they learn, on two CPU cores in minutes; it says nothing about accuracy on real video.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from flowprep.synth import Motion, render, write_video
from train.checkpoint import load_net
from train.common import Place
from train.config import Data, DistillConfig, Net, Optim, TeacherConfig
from train.data.batch import Batch
from train.distill import distill
from train.evaluate import EvaluateConfig, evaluate
from train.metrics import score
from train.setup import make_table, views
from train.teacher import train_teacher

CLASSES: dict[str, Callable[[float], Motion]] = {
    "clockwise": lambda v: Motion(rotate_deg=v),
    "counter": lambda v: Motion(rotate_deg=-v),
    "down": lambda v: Motion(dy_px=v),
    "left": lambda v: Motion(dx_px=-v),
    "right": lambda v: Motion(dx_px=v),
    "up": lambda v: Motion(dy_px=-v),
}
CHANCE = 1 / len(CLASSES)
VIDEOS = {"train": 16, "test": 8}  # of each class
NET, OPTIM = Net(width=0.25), Optim(epochs=16)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, extract: Callable[..., Path]) -> Path:
    """Clips of 16 frames, speeds drawn per video, in the splits train and test."""
    folder = tmp_path_factory.mktemp("motions")
    rng = np.random.default_rng(0)
    for split, n_videos in VIDEOS.items():
        for name, motion in CLASSES.items():
            (folder / "videos" / split / name).mkdir(parents=True)
            for number in range(n_videos):
                frames = render(motion(rng.uniform(1.2, 2.8)), 16, 72, 88, int(rng.integers(2**31)))
                write_video(folder / "videos" / split / name / f"{number}.mp4", frames, 25)
    return extract(folder / "videos", folder / "shards", "--size", "native", "--engine", "cpu")


@pytest.fixture(scope="module")
def runs(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A teacher, and the student that it taught."""
    folder = tmp_path_factory.mktemp("runs")
    made = {name: str(folder / name) for name in ("teacher", "student")}
    common = {"data": data(shards), "net": NET, "optim": OPTIM}
    assert train_teacher(TeacherConfig(run=made["teacher"], **common), cpu()) == "done"
    student = DistillConfig(run=made["student"], teacher=made["teacher"], **common)
    assert distill(student, cpu()) == "done"
    return made


def cpu() -> Place:
    import torch

    return Place(0, 1, torch.device("cpu"), False)


def data(shards: Path) -> Data:
    return Data(shards=str(shards), crop=64)


def losses(run: str) -> list[float]:
    log = [json.loads(line) for line in (Path(run) / "log.jsonl").read_text().splitlines()]
    return [row["loss"] for row in log if row["kind"] == "train"]


@pytest.mark.slow
def test_both_losses_fall(runs: dict[str, str]) -> None:
    for run in runs.values():
        first, *_, last = np.array_split(losses(run), 4)
        assert np.median(last) < 0.5 * np.median(first)


@pytest.mark.slow
def test_teacher_student_and_both_together_know_videos_they_never_saw(
    runs: dict[str, str], shards: Path
) -> None:
    config = EvaluateConfig(
        run=runs["student"], also=(runs["teacher"],), clips=2, crops=2, data=data(shards)
    )
    table = make_table(config.data).only("test")
    student, teacher, both = evaluate(config, table, cpu())
    assert len(both.scores) == VIDEOS["test"] * len(CLASSES)
    for judged in (student, teacher, both):
        assert judged.scores.top(1) >= 3 * CHANCE, judged.name


@pytest.mark.slow
def test_without_its_flow_the_teacher_knows_nothing(runs: dict[str, str], shards: Path) -> None:
    net, meta = load_net(runs["teacher"])
    table = make_table(data(shards)).only("test")

    def still(batches: Iterator[Batch]) -> Iterator[Batch]:
        return (batch._replace(flow_B2THW=0 * batch.flow_B2THW) for batch in batches)

    seen = views(table, meta.window, data(shards), cpu(), ("flow",), batch=8)
    assert score(net, "flow", still(seen), cpu()).top(1) == pytest.approx(CHANCE)


def test_without_a_teacher_one_is_trained_first_and_taken_again(
    labelled: Path, tmp_path: Path, here: Place
) -> None:
    """What `python -m train.distill --shards shards/` does, at the smallest size there is."""
    config = DistillConfig(
        run=str(tmp_path / "d3d"),
        data=Data(shards=str(labelled), frames=4, crop=32),
        net=Net(width=0.1),
        optim=Optim(epochs=0.5),
    )
    assert distill(config, here) == "done"
    teacher, student = (load_net(str(tmp_path / run))[1] for run in ("d3d/teacher", "d3d"))
    assert (teacher.modality, student.modality) == ("flow", "rgb")
    assert teacher.window == student.window
    assert student.config["teacher"] == str(tmp_path / "d3d" / "teacher")
    before = (tmp_path / "d3d" / "teacher" / "best.safetensors").stat().st_mtime_ns
    assert distill(config, here) == "done"
    assert (tmp_path / "d3d" / "teacher" / "best.safetensors").stat().st_mtime_ns == before
