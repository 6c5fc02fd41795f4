"""What every network promises: sizes, determinism, named features, the head, refusals."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flowprep.errors import FlowprepError
from train.models.base import MODELS, ModelConfig, Tapped, VideoModel, build, head_names

ARCHS = ("s3dg", "s3d")
SMALL = (2, 3, 8, 32, 32)


def small(arch: str = "s3dg", **settings: Any) -> VideoModel:
    """A narrow network whose BatchNorms have seen a batch, without which eval mode gives 1e-24."""
    torch.manual_seed(0)
    given = {"width": 0.25, "n_classes": 5, "bn_momentum": 1.0, **settings}
    model = build(ModelConfig(arch=arch, **given)).train()
    with torch.no_grad():
        model(clip((4, given.get("in_channels", 3), *SMALL[2:]), seed=2))
    return model.eval()


def clip(shape: tuple[int, ...] = SMALL, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def hooked(model: VideoModel, x: Tensor) -> dict[str, Tensor]:
    """The output of every tapped submodule, taken by forward hooks."""
    found: dict[str, Tensor] = {}

    def keep(name: str, _module: nn.Module, _args: Any, out: Tensor) -> None:
        found[name] = out

    for name, path in model.taps.items():
        model.get_submodule(path).register_forward_hook(partial(keep, name))
    model(x)
    return found


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("size", [(16, 56, 56), (8, 32, 32), (17, 57, 45), (7, 27, 27)])
@pytest.mark.parametrize("channels", [2, 3])
@torch.no_grad()
def test_logits_come_from_any_size(arch: str, size: tuple[int, int, int], channels: int) -> None:
    logits = small(arch, in_channels=channels)(clip((2, channels, *size)))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()
    assert logits.std() > 0.01


@torch.no_grad()
def test_the_gated_network_takes_a_single_pixel() -> None:
    assert small()(clip((1, 3, 1, 1, 1))).isfinite().all()


@pytest.mark.parametrize("arch", ARCHS)
@torch.no_grad()
def test_clips_of_a_batch_do_not_see_each_other(arch: str) -> None:
    model, x, order = small(arch), clip((3, *SMALL[1:])), [2, 0, 1]
    torch.testing.assert_close(model(x[order]), model(x)[order], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("arch", ARCHS)
@torch.no_grad()
def test_evaluation_is_deterministic_and_training_drops_out(arch: str) -> None:
    model, x = small(arch, dropout=0.5), clip()
    assert torch.equal(model(x), model(x))
    model.classifier.train()
    assert not torch.equal(model(x), model(x))


def test_the_same_seed_makes_the_same_network() -> None:
    first, second = small().state_dict(), small().state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_batch_norm_keeps_the_configured_momentum() -> None:
    model = small(bn_momentum=0.1)
    assert {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm3d)} == {0.1}


@pytest.mark.parametrize("arch", ARCHS)
@torch.no_grad()
def test_taps_are_the_outputs_of_their_submodules(arch: str) -> None:
    model, x = small(arch), clip()
    logits, features = Tapped(model, list(model.taps))(x)
    expected = hooked(model, x)
    expected["pool"] = expected["pool"].mean((2, 3, 4))
    assert " ".join(features) == "1a 2b 2c 3A 3b 3c 4b 4c 4d 4e 4f 5b 5c pool"
    assert all(torch.equal(features[name], expected[name]) for name in features)
    assert torch.equal(logits, model(x))


@torch.no_grad()
def test_logits_are_the_pooled_feature_times_the_classifier() -> None:
    model = small()
    logits, features = Tapped(model, ["pool"])(clip((2, 3, 64, 32, 32)))
    conv = model.get_submodule("classifier.conv")
    weight_KC, bias_K = conv.state_dict()["weight"].flatten(1), conv.state_dict()["bias"]
    torch.testing.assert_close(logits, features["pool"] @ weight_KC.T + bias_K)


@torch.no_grad()
def test_pooling_weighs_inner_time_steps_twice() -> None:
    """Windows of 2 over T steps, then their mean: (x0 + 2 x1 + .. + xT-1) / (2 (T - 1))."""
    pool = small().get_submodule("layers.pool")
    x_BCTHW = clip((1, 2, 4, 7, 7))
    steps = x_BCTHW.mean((3, 4))
    expected = (steps[..., 0] + 2 * steps[..., 1] + 2 * steps[..., 2] + steps[..., 3]) / 6
    torch.testing.assert_close(pool(x_BCTHW).mean((2, 3, 4)), expected)


def test_gradients_flow_through_a_feature_to_what_made_it() -> None:
    model = small()
    _, features = Tapped(model, ["3b"])(clip())
    features["3b"].square().mean().backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert "layers.conv_1a.conv.weight" in reached
    assert "layers.mixed_3b.branch1.sep.gate.conv.weight" in reached
    assert not any(n.startswith(("layers.mixed_3c", "classifier")) for n in reached)


def test_the_head_is_the_classifier() -> None:
    assert head_names(small()) == {"classifier.conv.weight", "classifier.conv.bias"}


@torch.no_grad()
def test_features_compile_to_one_graph() -> None:
    tapped = Tapped(small(), ["3A", "pool"])
    logits, features = tapped(clip())
    compiled: Callable[..., Any] = torch.compile(tapped, backend="eager", fullgraph=True)
    again, features_again = compiled(clip())
    torch.testing.assert_close(again, logits)
    torch.testing.assert_close(features_again, features)


def test_the_configuration_survives_json() -> None:
    config = ModelConfig(arch="s3d", in_channels=2, width=0.5)
    assert ModelConfig(**json.loads(json.dumps(asdict(config)))) == config


def test_every_registered_network_is_there() -> None:
    assert all(callable(entry.load()) and entry.summary for entry in MODELS.values())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"arch": "i3d"}, "unknown network 'i3d'.*\n.*s3dg, s3d, r2plus1d"),
        ({"in_channels": 0}, "in_channels = 0 .*\n.*at least 1"),
        ({"n_classes": 2.5}, "n_classes = 2.5 .*\n.*whole number"),
        ({"n_classes": True}, "n_classes = True "),
        ({"width": 0}, "width = 0 .*\n.*above 0"),
        ({"width": float("nan")}, "width = nan "),
        ({"dropout": 1}, "dropout = 1 .*\n.*below 1"),
        ({"dropout": -0.1}, "dropout = -0.1 "),
        ({"bn_momentum": 0}, "bn_momentum = 0 .*\n.*above 0"),
    ],
)
def test_impossible_values_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(FlowprepError, match=told):
        ModelConfig(**settings)


def test_an_unknown_layer_is_refused() -> None:
    with pytest.raises(FlowprepError, match=r"no layer '3a'.*\n.*1a, 2b, 2c, 3A, 3b"):
        Tapped(small(), ["3b", "3a"])


def test_r2plus1d_needs_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.delitem(sys.modules, "torchvision.models", raising=False)
    with pytest.raises(
        FlowprepError, match=r"r2plus1d.*cannot be made here.*\n.*pip install torch"
    ):
        build(ModelConfig(arch="r2plus1d"))


def test_r2plus1d_has_one_width() -> None:
    with pytest.raises(FlowprepError, match=r"width = 0.5 .*\n.*s3dg and s3d"):
        build(ModelConfig(arch="r2plus1d", width=0.5))
