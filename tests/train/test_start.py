"""Weights to start from: taken over, given a new head, or refused with the difference."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from flowprep.errors import FlowprepError
from train.checkpoint import LAST, STATE, Meta, load_meta, load_net, load_state, save_weights
from train.common import pick_device
from train.config import DistillConfig, Net
from train.data.windows import WindowConfig
from train.distill import check_features, check_teacher, other_flow
from train.models.base import ModelConfig, build, head_names
from train.start import known_classes, make_net, model_config

CLASSES = ["a", "b", "c"]


def meta(**changes) -> Meta:
    base = Meta(
        model=ModelConfig(in_channels=3, n_classes=3, width=0.1),
        modality="rgb",
        classes=CLASSES,
        window=WindowConfig(frames=8, crop=32),
        extraction={"fps": 25.0},
        fingerprint="f",
        config={},
        step=7,
        epoch=1.5,
        val_top1=0.5,
        commit="",
        versions={},
    )
    return replace(base, **changes)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    torch.manual_seed(4)
    save_weights(tmp_path / "run" / "best.safetensors", build(meta().model), meta())
    return tmp_path / "run"


def test_what_was_saved_comes_back(run: Path) -> None:
    net, found = load_net(str(run))
    assert found == meta()
    torch.manual_seed(4)
    for name, value in build(meta().model).state_dict().items():
        assert torch.equal(net.state_dict()[name], value)


def test_a_run_gives_its_weights_to_the_next(run: Path) -> None:
    net = Net(width=0.1, init=str(run))
    started = make_net(net, model_config(net, "rgb", 3))
    theirs = load_net(str(run))[0].state_dict()
    assert all(torch.equal(value, theirs[n]) for n, value in started.state_dict().items())
    assert known_classes(net) == CLASSES
    assert known_classes(replace(net, reset_head=True)) is None


def test_a_new_head_leaves_the_backbone_as_it_was(run: Path) -> None:
    net = Net(width=0.1, init=str(run), reset_head=True)
    torch.manual_seed(5)
    started = make_net(net, model_config(net, "rgb", 5))
    theirs = load_net(str(run))[0].state_dict()
    heads = head_names(started)
    for name, value in started.state_dict().items():
        if name in heads:
            assert value.shape[0] == 5
        else:
            assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize(
    ("changes", "modality", "n_classes", "told"),
    [
        ({}, "rgb", 4, "knows 3 classes, the dataset has 4"),
        ({"width": 0.5}, "rgb", 3, r"has width 0\.1, this network has 0\.5"),
        ({"arch": "s3d"}, "rgb", 3, "has arch s3dg, this network has s3d"),
        ({}, "flow", 3, "has in_channels 3, this network has 2"),
    ],
)
def test_weights_of_another_network_are_refused(
    run: Path, changes: dict, modality: str, n_classes: int, told: str
) -> None:
    net = replace(Net(width=0.1, init=str(run)), **changes)
    with pytest.raises(FlowprepError, match=told):
        make_net(net, model_config(net, modality, n_classes))


def test_a_new_head_needs_something_to_be_put_on() -> None:
    net = Net(width=0.1, reset_head=True)
    with pytest.raises(FlowprepError, match="--reset-head needs --init"):
        make_net(net, model_config(net, "rgb", 3))


def test_weights_of_a_later_format_are_told_as_such(tmp_path: Path) -> None:
    later = {**asdict(meta()), "format": 2, "what_it_adds": 1}
    text = {"flowprep": json.dumps(later)}
    save_file({"x": torch.zeros(1)}, tmp_path / "later.safetensors", text)
    with pytest.raises(FlowprepError, match="has format 2"):
        load_meta(tmp_path / "later.safetensors")


def test_files_that_are_no_weights_of_ours_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(FlowprepError, match="no weights at"):
        load_net(str(tmp_path / "nowhere"))
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(FlowprepError, match="holds no weights of this program"):
        load_meta(tmp_path / "foreign.safetensors")
    (tmp_path / "text.safetensors").write_text("no")
    with pytest.raises(FlowprepError, match="holds no weights of this program"):
        load_meta(tmp_path / "text.safetensors")
    whole = (run / "best.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FlowprepError, match="holds no weights of this program"):
        load_net(str(tmp_path / "half.safetensors"))


def test_a_state_runs_no_code(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"step": Hostile()}, tmp_path / STATE)
    with pytest.raises(FlowprepError, match=rf"is damaged.*\n.*--init .*{LAST}"):
        load_state(tmp_path / STATE)
    assert not (tmp_path / "owned").exists()


def teacher(**changes) -> Meta:
    return meta(
        modality="flow", model=ModelConfig(in_channels=2, n_classes=3, width=0.1), **changes
    )


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (meta(), "sees rgb"),
        (teacher(classes=["a", "b"]), "knows 2 classes"),
        (teacher(classes=["b", "a", "c"]), "knows 3 classes"),
        (teacher(window=WindowConfig(frames=8, crop=32, stride=2)), "--stride 2, this run has 1"),
        (teacher(window=WindowConfig(frames=8, crop=32, resize=40)), "--resize 40"),
    ],
)
def test_a_teacher_that_saw_something_else_is_refused(wrong: Meta, told: str) -> None:
    with pytest.raises(FlowprepError, match=told):
        check_teacher("t", wrong, meta())


def test_a_teacher_may_have_seen_other_windows() -> None:
    check_teacher("t", teacher(window=WindowConfig(frames=16, crop=64)), meta())


def test_a_teacher_of_flow_that_was_made_otherwise_is_told() -> None:
    made = {"fps": 25.0, "short_side": 256, "rgb_codec": "x264"}
    student = meta(extraction=made)
    assert other_flow(teacher(extraction=made | {"rgb_codec": "jpeg"}), student) == []
    odd = other_flow(teacher(extraction=made | {"fps": 12.5}), student)
    assert odd == ["fps: 12.5 -> 25.0"]


def test_features_of_other_networks_do_not_compare() -> None:
    check_features(teacher().model, meta().model)
    with pytest.raises(FlowprepError, match=r"width 0\.5"):
        check_features(ModelConfig(in_channels=2, width=0.5), meta().model)
    assert DistillConfig().loss == "mse-logits"


def test_cuda_that_is_not_there_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    with pytest.raises(FlowprepError, match=r"--device cuda: PyTorch .* sees no CUDA device"):
        pick_device("cuda")
