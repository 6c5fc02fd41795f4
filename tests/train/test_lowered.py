"""The lowered network gives what the original gives, and has nothing 3-D left."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flowprep.errors import FlowprepError
from train.models.base import ModelConfig, VideoModel, build
from train.models.layers import HeadPool, SamePad3d, SelfGating
from train.models.lowered import lower

THREE_D = (nn.Conv3d, nn.MaxPool3d, nn.AvgPool3d, nn.AdaptiveAvgPool3d, HeadPool)
SIZES = [(8, 32, 32), (7, 33, 47), (13, 61, 27), (9, 28, 39)]
ARCHS = [("s3dg", 0.1), ("s3d", 0.1), ("s3dg", 0.37)]


def lively(net: nn.Module) -> nn.Module:
    """Random weights and statistics, so that every layer shows in the output: eval mode."""
    made = torch.Generator().manual_seed(3)
    gain = 8 if any(isinstance(m, SelfGating) for m in net.modules()) else 2  # a gate halves
    for module in net.modules():
        if isinstance(module, nn.Conv3d):
            fan_in = module.weight[0].numel()
            module.weight.data.normal_(0, (gain / fan_in) ** 0.5, generator=made)
            if module.bias is not None:
                module.bias.data.normal_(0, 0.1, generator=made)
        elif isinstance(module, nn.BatchNorm3d):
            module.bias.data.normal_(0, 0.1, generator=made)
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=made)
            module.running_var.uniform_(0.1, 0.4, generator=made)
    return net.eval()


def network(arch: str, width: float, **settings: Any) -> VideoModel:
    net = build(ModelConfig(arch=arch, width=width, n_classes=7, **settings))
    lively(net)
    return net


def noise(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    made = torch.Generator().manual_seed(5)
    return torch.rand(shape, generator=made, dtype=torch.float64).to(dtype) * 2 - 1


def worst(net: nn.Module, x: Tensor) -> float:
    """Largest difference, as a share of the largest output, which must not be next to nothing."""
    with torch.no_grad():
        want, got = net(x), lower(net)(x)
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    assert want.std() > 1e-3
    return float((got - want).abs().max() / want.abs().max())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("arch", "width"), ARCHS)
def test_logits_stay_the_same(arch: str, width: float, size: tuple[int, int, int]) -> None:
    net = network(arch, width)
    assert worst(net.double(), noise(2, 3, *size)) < 1e-10
    assert worst(net.float(), noise(2, 3, *size, dtype=torch.float32)) < 1e-5


def test_flow_goes_in_as_well() -> None:
    net = network("s3dg", 0.1, in_channels=2).double()
    assert worst(net, noise(1, 2, 8, 32, 32)) < 1e-10


@pytest.mark.parametrize(("arch", "width"), ARCHS)
def test_no_3d_layer_is_left(arch: str, width: float) -> None:
    net = network(arch, width)
    assert any(isinstance(m, THREE_D) for m in net.modules())
    left = [name for name, m in lower(net).named_modules() if isinstance(m, THREE_D)]
    assert left == []


def test_nothing_3d_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    lowered = lower(network("s3dg", 0.1))
    for name in ("conv3d", "max_pool3d", "avg_pool3d"):
        monkeypatch.setattr(nn.functional, name, partial(pytest.fail, f"called {name}"))
    lowered(noise(1, 3, 8, 32, 32, dtype=torch.float32))


def values(net: nn.Module) -> list[float]:
    return sorted(v for p in net.parameters() for v in p.detach().flatten().tolist())


def test_the_weights_are_the_same_numbers_and_the_original_keeps_its_own() -> None:
    net = network("s3dg", 0.1)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    lowered = lower(net)
    assert values(lowered) == values(net)
    for parameter in lowered.parameters():
        parameter.data.zero_()
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_the_mode_stays() -> None:
    net = network("s3dg", 0.1)
    assert not any(m.training for m in lower(net).modules())
    assert all(m.training for m in lower(net.train()).modules())


def test_lowering_takes_nothing_from_the_random_state() -> None:
    net = network("s3dg", 0.1)
    before = torch.get_rng_state()
    lower(net)
    assert torch.equal(torch.get_rng_state(), before)


def alone(layer: nn.Module) -> nn.Module:
    return lively(nn.Sequential(OrderedDict(layer=layer))).double()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv3d(3, 5, (3, 7, 7), (2, 2, 2), (1, 3, 3)),
        nn.Conv3d(3, 5, (3, 5, 3), (1, 2, 3), (2, 0, 1)),
        nn.Conv3d(3, 5, (4, 1, 1), (3, 1, 1), (2, 0, 0)),
        nn.Conv3d(3, 5, (1, 3, 2), (2, 1, 1), (0, 1, 0)),
        nn.Conv3d(3, 5, 1, (2, 2, 2)),
        nn.Conv3d(3, 5, 1, (2, 1, 1), padding=(1, 0, 0)),
        nn.Conv3d(3, 5, 1, padding=(0, 1, 0)),
        nn.MaxPool3d(3, 2, 1),
        nn.MaxPool3d(2),
        nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        nn.MaxPool3d((3, 1, 1), (2, 1, 1), (1, 0, 0)),
        nn.MaxPool3d(1, 2),
        nn.AdaptiveAvgPool3d(1),
        nn.AdaptiveAvgPool3d((1, 1, 1)),
        HeadPool(),
        nn.Sequential(SamePad3d((3, 3, 3), (2, 2, 2)), nn.MaxPool3d(3, 2)),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(6, 9, 11), (5, 8, 7)])
def test_single_layers(layer: nn.Module, size: tuple[int, int, int]) -> None:
    assert worst(alone(layer), noise(2, 3, *size)) < 1e-12


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv3d(4, 4, 3, dilation=2),
        nn.Conv3d(4, 4, 3, groups=2),
        nn.Conv3d(4, 4, 3, padding="same"),
        nn.Conv3d(4, 4, 3, padding=1, padding_mode="replicate"),
        nn.ConvTranspose3d(4, 4, 3),
        nn.MaxPool3d(3, dilation=2),
        nn.MaxPool3d(3, ceil_mode=True),
        nn.MaxPool3d(3, return_indices=True),
        nn.AvgPool3d(2),
        nn.AdaptiveAvgPool3d(2),
        nn.AdaptiveMaxPool3d(1),
    ],
    ids=str,
)
def test_what_cannot_be_lowered_is_refused_by_name(layer: nn.Module) -> None:
    with pytest.raises(FlowprepError, match="layer layer cannot be made of 2-D operations"):
        lower(nn.Sequential(OrderedDict(layer=layer)))
