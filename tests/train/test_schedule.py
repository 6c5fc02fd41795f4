"""The learning rate over a run, and which parameters learn how."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from train.config import Optim
from train.models.base import ModelConfig, build
from train.objective import Trained
from train.schedule import full_rate_names, make_optimizer, rate, set_rate


def rates(total: int, **options) -> np.ndarray:
    optim = Optim(lr=0.8, **options)
    return np.array([rate(step, total, optim) for step in range(total)])


def test_cosine_rises_to_the_rate_and_falls_to_nearly_zero() -> None:
    found = rates(100, warmup=0.1, schedule="cosine")
    np.testing.assert_allclose(found[:10], 0.08 * np.arange(1, 11))
    after = np.arange(90) / 90
    np.testing.assert_allclose(found[10:], 0.8 * np.cos(np.pi * after / 2) ** 2, atol=1e-12)


def test_steps_fall_to_a_tenth_and_a_hundredth() -> None:
    found = rates(80, warmup=0.0, schedule="step")
    assert [np.unique(part.round(9)).tolist() for part in np.split(found, [60, 70])] == [
        [0.8],
        [0.08],
        [0.008],
    ]


@pytest.mark.parametrize("total", [1, 2, 3])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 1.0])
def test_the_shortest_runs_have_a_rate(total: int, warmup: float) -> None:
    found = rates(total, warmup=warmup)
    assert np.all(found > 0)
    assert np.all(found < 0.8 + 1e-9)


def test_only_weights_decay_and_the_backbone_learns_at_its_own_rate() -> None:
    net = build(ModelConfig(arch="s3dg", n_classes=3, width=0.1))
    trained = Trained(net, ("3A",), nn.Conv3d(24, 2, 1))
    optim = Optim(lr=0.5, weight_decay=0.01)
    optimizer = make_optimizer(trained, full_rate_names(trained), optim, backbone=0.1)
    set_rate(optimizer, 0.5)
    found = {
        id(p): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    learning = {name: p for name, p in trained.named_parameters() if p.requires_grad}
    assert len(found) == len(learning)
    for name, parameter in learning.items():
        full = "classifier" in name or name.startswith("decoder")
        decays = name.endswith("weight")
        assert found[id(parameter)] == (0.5 if full else 0.05, 0.01 if decays else 0.0), name


def test_adamw_is_what_torch_calls_so() -> None:
    net = nn.Linear(2, 2)
    optimizer = make_optimizer(net, set(), Optim(optimizer="adamw", lr=0.1), 1.0)
    assert isinstance(optimizer, torch.optim.AdamW)


def test_sgd_looks_ahead_with_the_momentum_asked_for() -> None:
    """Nesterov as torch has it: v = m v + g, then the step is along g + m v."""
    weight = nn.Parameter(torch.tensor([[2.0]]))
    net = nn.Module()
    net.register_parameter("weight", weight)
    optim = Optim(optimizer="sgd", lr=0.1, momentum=0.5, weight_decay=0.0)
    optimizer = make_optimizer(net, set(), optim, 1.0)
    expected, velocity = 2.0, 0.0
    for gradient in (1.0, -3.0, 2.0):
        weight.grad = torch.tensor([[gradient]])
        optimizer.step()
        velocity = 0.5 * velocity + gradient
        expected -= 0.1 * (gradient + 0.5 * velocity)
        assert weight.item() == pytest.approx(expected)
