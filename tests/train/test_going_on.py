"""Going on with a run: with what it may, never with something else under the same name."""

from __future__ import annotations

import shutil
import signal
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from flowprep.errors import FlowprepError
from train import loop
from train.checkpoint import load_meta, load_net, save_weights
from train.common import Place
from train.config import Data, DistillConfig, Machine, Net, Optim, TeacherConfig
from train.data.table import load_table
from train.distill import distill
from train.loop import Trainer
from train.metrics import Scores
from train.models.base import build
from train.setup import prepare
from train.step import Stepper
from train.teacher import train_teacher

NET, OPTIM = Net(width=0.1), Optim(epochs=1, batch=4, lr=0.01, precise_bn=1)  # 8 videos: 2 steps


def data(shards: Path, **options) -> Data:
    return Data(shards=str(shards), frames=8, crop=32, workers=0, **options)


def teacher(shards: Path, run: Path, **changes) -> TeacherConfig:
    return replace(TeacherConfig(run=str(run), data=data(shards), net=NET, optim=OPTIM), **changes)


def student(shards: Path, run: Path, **changes) -> DistillConfig:
    return replace(DistillConfig(run=str(run), data=data(shards), net=NET, optim=OPTIM), **changes)


@pytest.fixture(scope="module")
def taught(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of one epoch."""
    run = tmp_path_factory.mktemp("taught") / "teacher"
    one = Place(0, 1, torch.device("cpu"), False)
    assert train_teacher(teacher(labelled, run), one) == "done"
    return run


@pytest.fixture
def stop_after_a_step(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Until it is undone."""
    take = Stepper.take

    def interrupted(stepper: Stepper, batch):
        terms = take(stepper, batch)
        signal.raise_signal(signal.SIGINT)
        return terms

    monkeypatch.setattr(Stepper, "take", interrupted)
    return monkeypatch


def relabelled(run: Path, classes: list[str], to: Path) -> Path:
    """The weights of a run, for other classes and RGB."""
    meta = load_meta(run / "best.safetensors")
    model = replace(meta.model, n_classes=len(classes), in_channels=3)
    changed = replace(meta, model=model, modality="rgb", classes=classes)
    save_weights(to / "best.safetensors", build(model), changed)
    return to


def test_a_run_keeps_the_classes_it_began_with(
    taught: Path, labelled: Path, tmp_path: Path, here: Place, stop_after_a_step: pytest.MonkeyPatch
) -> None:
    """--init orders them and need not be given again: its order must not be lost in silence."""
    init = relabelled(taught, ["right", "left", "down"], tmp_path / "init")
    config = student(labelled, tmp_path / "run", loss="none", net=replace(NET, init=str(init)))
    assert distill(config, here) == "interrupted"
    stop_after_a_step.undo()
    with pytest.raises(FlowprepError, match="videos or their classes are no longer"):
        distill(replace(config, net=NET), here)
    assert distill(config, here) == "done"
    assert load_net(config.run)[1].classes == ["right", "left", "down"]


def test_a_student_keeps_its_teacher_wherever_it_lies(
    taught: Path, labelled: Path, tmp_path: Path, here: Place, stop_after_a_step: pytest.MonkeyPatch
) -> None:
    config = student(labelled, tmp_path / "run", teacher=str(taught))
    assert distill(config, here) == "interrupted"
    stop_after_a_step.undo()
    other = tmp_path / "other"
    assert train_teacher(teacher(labelled, other, seed=1), here) == "done"
    with pytest.raises(FlowprepError, match="the weights of the teacher are no longer"):
        distill(replace(config, teacher=str(other)), here)
    moved = shutil.copy(taught / "best.safetensors", tmp_path / "moved.safetensors")
    assert distill(replace(config, teacher=str(moved)), here) == "done"


def test_the_folder_of_a_teacher_is_no_students(
    taught: Path, labelled: Path, tmp_path: Path, here: Place
) -> None:
    run = shutil.copytree(taught, tmp_path / "run")
    with pytest.raises(FlowprepError, match="is a run of flow, not of rgb"):
        distill(student(labelled, run, teacher=str(taught)), here)
    assert distill(student(labelled, tmp_path / "rgb", loss="none"), here) == "done"
    with pytest.raises(FlowprepError, match="is a run of rgb, not of flow"):
        train_teacher(teacher(labelled, tmp_path / "rgb"), here)


def test_a_teacher_learns_the_classes_its_student_starts_with(
    taught: Path, labelled: Path, tmp_path: Path, here: Place
) -> None:
    classes = ["up", "right", "left", "down"]
    init = relabelled(taught, classes, tmp_path / "init")
    config = student(labelled, tmp_path / "run", net=replace(NET, init=str(init)))
    assert distill(config, here) == "done"
    for run in (tmp_path / "run", tmp_path / "run" / "teacher"):
        assert load_net(str(run))[1].classes == classes


def test_a_teacher_that_is_not_listened_to_is_told(
    labelled: Path, tmp_path: Path, here: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    config = student(labelled, tmp_path / "run", loss="none", teacher="runs/t")
    assert distill(config, here) == "done"
    assert "--loss none learns from no teacher: runs/t is not used" in capsys.readouterr().out


def test_ctrl_c_in_the_last_validation_is_not_lost(
    labelled: Path, tmp_path: Path, here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A student would begin otherwise."""
    score = loop.score

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)
        return score(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "score", interrupted)
        assert train_teacher(teacher(labelled, tmp_path / "run"), here) == "interrupted"
    assert train_teacher(teacher(labelled, tmp_path / "run"), here) == "done"


def test_what_a_damaged_sample_stopped_goes_on_without_it(
    labelled: Path, tmp_path: Path, here: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that is validated on, which the batches of training never meet."""
    shards = shutil.copytree(labelled, tmp_path / "shards")
    held = load_table(str(shards)).only("val")
    run = tmp_path / "run"
    config = teacher(shards, run, optim=replace(OPTIM, epochs=1))
    tar = held.tars[int(held.tar_N[0])]
    offset, size = (int(n) for n in held.places_N32[0, 0])
    with tar.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(size))
    with pytest.raises(FlowprepError, match="--skip-bad leaves such samples out"):
        train_teacher(config, here)
    skipping = replace(config, data=replace(config.data, skip_bad=True))
    assert train_teacher(skipping, here) == "done"
    assert f"1 damaged samples were left out: {held.key_N[0]}" in capsys.readouterr().out


def test_batch_norm_is_measured_before_weights_are_kept(
    labelled: Path, tmp_path: Path, here: Place
) -> None:
    """What is measured does not depend on how fast a running mean would have followed."""
    kept = []
    for momentum in (0.05, 0.5):
        slow = replace(NET, bn_momentum=momentum, dropout=0.0)
        config = teacher(labelled, tmp_path / str(momentum), net=slow)
        assert train_teacher(config, here) == "done"
        kept.append(load_net(config.run)[0].state_dict())
    for name, value in kept[0].items():
        assert torch.equal(value, kept[1][name]), name


def test_the_state_is_saved_in_time(
    labelled: Path, tmp_path: Path, here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []
    save = loop.save_state
    monkeypatch.setattr(loop, "save_state", lambda p, s: (saved.append(s["step"]), save(p, s)))
    optim, often = replace(OPTIM, epochs=2), Machine(save_minutes=0)
    assert train_teacher(teacher(labelled, tmp_path / "a", optim=optim, machine=often), here)
    assert saved == [1, 2, 3, 4]
    saved.clear()
    assert train_teacher(teacher(labelled, tmp_path / "b", optim=optim), here)
    assert saved == [4]


def test_the_best_weights_are_those_of_the_most_right_then_of_the_least_loss(
    labelled: Path, tmp_path: Path, here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of equals the first, also after a stop."""
    wrong, unsure, sure = [0.0, 9.0, 0.0], [1.0, 0.5, 0.5], [9.0, 0.0, 0.0]
    found = iter([wrong, unsure, sure, sure, wrong, unsure])

    def scored(*_: object) -> Scores:
        return Scores(torch.tensor([0]), torch.tensor([next(found)]), torch.tensor([0]))

    monkeypatch.setattr(loop, "VALIDATE_STEPS", 1)
    monkeypatch.setattr(loop, "score", scored)
    config = teacher(labelled, tmp_path / "run", optim=replace(OPTIM, epochs=6))
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_agreed", lambda self, flag: self._stepper.step == 9)
        assert train_teacher(config, here) == "interrupted"
    assert train_teacher(config, here) == "done"
    assert load_meta(tmp_path / "run" / "best.safetensors").step == 6
    assert load_meta(tmp_path / "run" / "last.safetensors").step == 12


def test_the_length_of_an_epoch_is_not_rounded(labelled: Path, tmp_path: Path, here: Place) -> None:
    """8 videos in batches of 3: 64 * (8 / 3) in floats, rounded up, may be a step too many."""
    config = teacher(labelled, tmp_path / "run", optim=replace(OPTIM, batch=3))
    assert prepare(config, "flow", here).feed.epoch_steps == Fraction(8, 3)


@pytest.mark.parametrize(("videos", "batch"), [(5, 3), (25, 3), (97, 3), (8, 4), (7, 10)])
def test_epochs_end_where_whole_numbers_say(
    videos: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "VALIDATE_STEPS", 1)
    trainer = Trainer.__new__(Trainer)
    trainer._feed = SimpleNamespace(epoch_steps=Fraction(videos, batch))
    ends = []
    for step in range(1, 200):
        trainer._stepper = SimpleNamespace(step=step, total_steps=1000)
        if trainer._epoch_ends():
            ends.append(step)
    epochs = -(-batch // videos)  # that are shorter than a step go by together
    whole = epochs * videos
    assert ends == [s for s in range(1, 200) if s * batch // whole > (s - 1) * batch // whole]
