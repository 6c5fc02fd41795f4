"""Decoders see one time step; their targets and errors against loops in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flowprep.errors import FlowprepError
from train.models.base import ModelConfig, Tapped, build
from train.models.decoders import (
    DECODERS,
    EachStep,
    build_decoder,
    end_point_errors,
    epe,
    feature_channels,
    flow_target,
)

COUNTS = {"simple": 386, "spatial": 553_986, "pwc": 1_477_314}  # d3d.md, section 4: C = 192


def randomized(module: nn.Module) -> nn.Module:
    """No weight is zero, so that a decoder answers to its input."""
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = max(1, parameter[0].numel())
            parameter.copy_(torch.randn(parameter.shape, generator=rng) / fan_in**0.5)
    return module


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sees_each_step_alone(decoder: nn.Module) -> bool:
    """Whether permuting the steps of a feature permutes the output."""
    feature, order = noise(2, 6, 5, 7, 4), torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        flow, permuted = decoder(feature), decoder(feature[:, :, order])
    assert flow.shape == (2, 2, 5, 7, 4)
    assert flow.std(2).min() > 0  # else the answer means nothing
    return torch.allclose(permuted, flow[:, :, order], atol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
def test_decoders_see_each_step_alone(name: str) -> None:
    assert sees_each_step_alone(randomized(build_decoder(name, 6)))


def test_a_convolution_over_time_is_told_apart() -> None:
    over_time = randomized(nn.Conv3d(6, 2, (3, 1, 1), padding=(1, 0, 0)))
    assert not sees_each_step_alone(over_time)
    assert sees_each_step_alone(EachStep(over_time))


def test_samples_of_a_batch_stay_apart() -> None:
    decoder = randomized(build_decoder("pwc", 6))
    feature = noise(3, 6, 4, 5, 5)
    alone = torch.cat([decoder(feature[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(decoder(feature), alone)


@pytest.mark.parametrize("name", DECODERS)
def test_parameters(name: str) -> None:
    assert sum(p.numel() for p in build_decoder(name, 192).parameters()) == COUNTS[name]


@pytest.mark.parametrize("name", DECODERS)
def test_weights_are_of_3d_convolutions(name: str) -> None:
    build_decoder(name, 16).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


@pytest.mark.parametrize("name", DECODERS)
def test_an_untrained_decoder_predicts_zero_flow_and_can_learn(name: str) -> None:
    decoder = build_decoder(name, 8)
    flow = decoder(noise(2, 8, 3, 6, 6))
    assert not flow.any()
    epe(flow, torch.ones_like(flow)).backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in decoder.parameters())


def test_spatial_and_pwc_layer_by_layer() -> None:
    feature = noise(1, 5, 1, 6, 6)
    spatial, pwc = (randomized(build_decoder(name, 5)) for name in ("spatial", "pwc"))
    x = dense = feature[:, :, 0]
    kernels = [p for p in spatial.parameters() if p.ndim > 1]
    biases = [p for p in spatial.parameters() if p.ndim == 1]
    assert [len(k) for k in kernels] == [128, 128, 96, 64, 32, 2]
    for kernel, bias in zip(kernels[:-1], biases, strict=False):
        x = torch.conv2d(x, kernel[:, :, 0], bias, padding=1).clamp(min=0)
    expected = torch.conv2d(x, kernels[-1][:, :, 0], biases[-1], padding=1)
    torch.testing.assert_close(spatial(feature)[:, :, 0], expected)
    kernels = [p for p in pwc.parameters() if p.ndim > 1]
    biases = [p for p in pwc.parameters() if p.ndim == 1]
    for kernel, bias in zip(kernels[:-1], biases, strict=False):
        new = torch.conv2d(dense, kernel[:, :, 0], bias, padding=1)
        dense = torch.cat([torch.maximum(new, 0.1 * new), dense], 1)
    expected = torch.conv2d(dense, kernels[-1][:, :, 0], biases[-1], padding=1)
    torch.testing.assert_close(pwc(feature)[:, :, 0], expected)


def test_an_unknown_decoder_is_refused() -> None:
    with pytest.raises(FlowprepError, match=r"unknown decoder 'flownet'\nHint: allowed: simple, "):
        build_decoder("flownet", 8)


@pytest.mark.parametrize("arch", ["s3dg", "s3d"])
def test_channels_are_those_of_the_feature(arch: str) -> None:
    torch.manual_seed(0)
    net = build(ModelConfig(arch=arch, width=0.1, n_classes=3)).eval()
    names = ["1a", "2b", "3A", "4d", "5c"]
    with torch.no_grad():
        _, features = Tapped(net, names)(torch.zeros(1, 3, 16, 32, 32))
    for name in names:
        assert feature_channels(net, name) == features[name].shape[1]


def test_channels_at_full_width() -> None:
    with torch.device("meta"):
        net = build(ModelConfig())
    known = {"1a": 64, "2c": 192, "3A": 192, "3c": 480, "5c": 1024}
    assert {name: feature_channels(net, name) for name in known} == known


@pytest.mark.parametrize("layer", ["6z", "3a", "pool"])
def test_a_layer_without_a_grid_is_refused(layer: str) -> None:
    with torch.device("meta"):
        net = build(ModelConfig(width=0.1))
    with pytest.raises(FlowprepError, match=f"layer '{layer}'\nHint: allowed: 1a, 2b, 2c, 3A, 3b"):
        feature_channels(net, layer)


def cell_means(flow_2THW: np.ndarray, size_THW: tuple[int, int, int]) -> np.ndarray:
    """By loops: cell i of n covers floor(i N / n) up to ceil((i + 1) N / n)."""

    def windows(n_cells: int, length: int) -> list[slice]:
        return [
            slice(i * length // n_cells, math.ceil((i + 1) * length / n_cells))
            for i in range(n_cells)
        ]

    axes = [windows(n, length) for n, length in zip(size_THW, flow_2THW.shape[1:], strict=True)]
    out = np.empty((2, *size_THW))
    for t, frames in enumerate(axes[0]):
        for y, rows in enumerate(axes[1]):
            for x, columns in enumerate(axes[2]):
                out[:, t, y, x] = flow_2THW[:, frames, rows, columns].mean((1, 2, 3))
    return out


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((8, 32, 32), (4, 4, 4)),
        ((7, 30, 45), (4, 8, 6)),  # T odd, nothing divides
        ((9, 13, 11), (3, 4, 11)),
        ((5, 9, 9), (5, 9, 9)),
    ],
)
def test_target_is_the_mean_of_each_cell(
    before: tuple[int, int, int], after: tuple[int, int, int]
) -> None:
    flow = noise(2, 2, *before)
    expected = np.stack([cell_means(one.double().numpy(), after) for one in flow])
    np.testing.assert_allclose(flow_target(flow, after), expected, atol=1e-6)


def test_target_of_analytic_flows() -> None:
    """dx = x and dy = t: a cell of 8 pixels has its centre, a step the mean of its two frames."""
    t, _, x = np.indices((6, 16, 24), np.float32)
    target = flow_target(torch.from_numpy(np.stack([x, t])[None]), (3, 2, 3))
    assert target[0, 0].tolist() == [[[3.5, 11.5, 19.5]] * 2] * 3
    assert target[0, 1, :, 0, 0].tolist() == [0.5, 2.5, 4.5]


def test_target_keeps_pixels_of_the_input() -> None:
    uniform = torch.tensor([7.0, -3.0]).reshape(1, 2, 1, 1, 1).expand(1, 2, 4, 56, 56)
    assert flow_target(uniform, (2, 7, 7)).flatten(2).unique(dim=2).squeeze().tolist() == [7, -3]


def test_errors_against_numpy() -> None:
    flow, target = noise(3, 2, 4, 5, 6), noise(3, 2, 4, 5, 6, seed=9)
    lengths = np.hypot(*np.moveaxis((flow - target).numpy(), 1, 0))
    np.testing.assert_allclose(end_point_errors(flow, target), lengths, rtol=1e-6)
    assert epe(flow, target).item() == pytest.approx(lengths.mean(), rel=1e-6)
    assert epe(torch.zeros(1, 2, 1, 1, 1), torch.tensor([3.0, 4]).reshape(1, 2, 1, 1, 1)) == 5


def test_half_precision_is_measured_in_single() -> None:
    flow = noise(1, 2, 2, 3, 3).bfloat16()
    assert end_point_errors(flow, torch.zeros(1, 2, 2, 3, 3)).dtype == torch.float32


def test_no_error_has_a_gradient_of_zero() -> None:
    flow = torch.ones(1, 2, 1, 2, 2, requires_grad=True)
    epe(flow, torch.ones(1, 2, 1, 2, 2)).backward()
    assert flow.grad is not None
    assert not flow.grad.any()
