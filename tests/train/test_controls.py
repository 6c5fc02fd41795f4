"""Controls of distillation: a teacher of RGB, another clip's logits, frames out of order."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from flowprep.errors import FlowprepError
from train.checkpoint import load_net, load_weights
from train.common import Place
from train.config import Data, DistillConfig, Net, Optim, TeacherConfig
from train.data.batch import Batch, rgb_input
from train.data.loader import eval_loader, train_loader
from train.data.table import load_table
from train.data.windows import WindowConfig
from train.distill import distill
from train.metrics import Scores
from train.models.base import ModelConfig, build
from train.objective import Distill, DistillShuffled
from train.step import Stepper
from train.teacher import train_teacher

WINDOW = WindowConfig(frames=8, crop=32)
NET, OPTIM = Net(width=0.1), Optim(epochs=1, batch=4, lr=0.01, precise_bn=1)


def config(shards: Path, run: Path, **changes) -> DistillConfig:
    data = Data(shards=str(shards), frames=8, crop=32)
    return replace(DistillConfig(run=str(run), data=data, net=NET, optim=OPTIM), **changes)


def order_of(shuffled: Tensor, plain: Tensor) -> list[int]:
    """Where each frame of a window [C, T, H, W] is in the window in order."""
    same = (shuffled[:, :, None] == plain[:, None]).flatten(3).all(3).all(0)
    assert (same.sum(1) == 1).all()
    return same.int().argmax(1).tolist()


def test_shuffled_windows_hold_the_same_frames_and_flows_in_another_order(labelled: Path) -> None:
    table = load_table(str(labelled)).only("train")
    shuffled = replace(WINDOW, shuffle_frames=True)
    plain, other, again = (
        next(train_loader(table, w, batch=8, seed=3)) for w in (WINDOW, shuffled, shuffled)
    )
    orders = [order_of(*pair) for pair in zip(other.rgb_B3THW, plain.rgb_B3THW, strict=True)]
    assert all(sorted(order) == list(range(8)) for order in orders)
    assert len({tuple(order) for order in orders}) == 8  # each window its own
    for order, flow, in_order in zip(orders, other.flow_B2THW, plain.flow_B2THW, strict=True):
        assert torch.equal(flow, in_order[:, order])
    assert torch.equal(other.rgb_B3THW, again.rgb_B3THW)


def test_shuffled_windows_are_judged_in_one_order_however_they_are_read(labelled: Path) -> None:
    table = load_table(str(labelled)).only("train")
    shuffled = replace(WINDOW, shuffle_frames=True)
    (plain,) = eval_loader(table, WINDOW, batch=99)
    (at_once,) = eval_loader(table, shuffled, batch=99)
    by_threes = torch.cat([b.rgb_B3THW for b in eval_loader(table, shuffled, batch=3)])
    assert torch.equal(at_once.rgb_B3THW, by_threes)
    orders = {
        tuple(order_of(*pair)) for pair in zip(at_once.rgb_B3THW, plain.rgb_B3THW, strict=True)
    }
    assert len(orders) > len(table) / 2


def nets(channels: int) -> list:
    torch.manual_seed(0)
    model = ModelConfig(n_classes=2, width=0.1, dropout=0.0)
    return [build(model), build(replace(model, in_channels=channels))]


@pytest.fixture
def batch() -> Batch:
    g = torch.Generator().manual_seed(5)
    rgb = torch.randint(0, 256, (4, 3, 4, 32, 32), generator=g, dtype=torch.uint8)
    return Batch(rgb, torch.empty(4, 0), torch.tensor([0, 1, 0, 1]), torch.tensor([7, 3, 9, 4]))


def test_a_teacher_of_rgb_says_what_it_says_of_the_rgb(batch: Batch) -> None:
    student, teacher = nets(3)
    objective = Distill(student, teacher, DistillConfig(teacher_sees="rgb", lambda_=2.0))
    terms = objective(objective.trained, batch)
    with torch.no_grad():
        taught = teacher(rgb_input(batch.rgb_B3THW)).numpy()
        student.train()
        mine = student(rgb_input(batch.rgb_B3THW)).numpy()
    assert terms["match_loss"].item() == pytest.approx(np.square(mine - taught).mean(), rel=1e-4)


SAID = Scores(
    video_V=torch.tensor([1, 3, 4, 7, 8, 9]),
    logits_VK=torch.arange(12.0, dtype=torch.float64).view(6, 2),
    label_V=torch.tensor([0, 1, 1, 0, 1, 0]),
)


def test_shuffled_logits_are_of_another_video_of_the_class(batch: Batch) -> None:
    objective = DistillShuffled(*nets(2), DistillConfig(), SAID)
    seen: list[set[int]] = [set() for _ in batch.label_B]
    for seed in range(40):
        torch.manual_seed(seed)
        for taught, place in zip(objective._taught(batch)[0], seen, strict=True):
            place.add(int(SAID.video_V[int(taught[0]) // 2]))
    assert seen == [{1, 9}, {4, 8}, {1, 7}, {3, 8}]  # of videos 7, 3, 9 and 4


def test_a_class_of_one_video_has_no_other() -> None:
    lonely = replace(SAID, label_V=torch.tensor([0, 1, 1, 0, 2, 0]))
    with pytest.raises(FlowprepError, match="a class has one training video"):
        DistillShuffled(*nets(2), DistillConfig(), lonely)


def test_controls_train_and_go_on_where_they_stopped(
    labelled: Path, tmp_path: Path, here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With logits of other videos, and in a second run of a teacher of RGB."""
    flow, rgb = str(tmp_path / "flow"), str(tmp_path / "rgb")
    plain = config(labelled, tmp_path / "rgb", loss="none")
    assert distill(plain, here) == "done"
    teacher = TeacherConfig(run=flow, data=plain.data, net=NET, optim=OPTIM)
    assert train_teacher(teacher, here) == "done"
    changes = {"teacher": flow, "teacher_logits": "shuffled"}
    assert distill(config(labelled, tmp_path / "whole", **changes), here) == "done"
    with monkeypatch.context() as patch:
        take = Stepper.take
        patch.setattr(
            Stepper,
            "take",
            lambda self, batch: (take(self, batch), signal.raise_signal(signal.SIGINT))[0],
        )
        assert distill(config(labelled, tmp_path / "parts", **changes), here) == "interrupted"
    assert distill(config(labelled, tmp_path / "parts", **changes), here) == "done"
    whole, parts = (load_weights(tmp_path / n / "last.safetensors") for n in ("whole", "parts"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
    own = config(labelled, tmp_path / "own", teacher=flow)
    assert distill(own, here) == "done"
    assert any(
        not torch.equal(value, whole[name])
        for name, value in load_weights(tmp_path / "own" / "last.safetensors").items()
    )
    taught_by_rgb = config(labelled, tmp_path / "self", teacher=rgb, teacher_sees="rgb")
    assert distill(taught_by_rgb, here) == "done"
    assert load_net(taught_by_rgb.run)[1].config["teacher_sees"] == "rgb"
    with pytest.raises(FlowprepError, match="sees rgb, --teacher-sees is flow"):
        distill(config(labelled, tmp_path / "mistaken", teacher=rgb), here)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"teacher_sees": "rgb"}, "--teacher-sees rgb needs --teacher"),
        ({"teacher_logits": "shuffled", "loss": "none"}, "does nothing with --loss none"),
        ({"teacher_logits": "shuffled", "loss": "mse-features"}, "nothing with --loss mse-feat"),
    ],
)
def test_controls_that_make_no_sense_are_refused(
    changes: dict, told: str, tmp_path: Path, here: Place
) -> None:
    with pytest.raises(FlowprepError, match=told):
        distill(config(tmp_path, tmp_path / "run", **changes), here)
