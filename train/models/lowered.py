"""Networks without a 3-D operation, for runtimes that have no Conv3d, MaxPool3d or AvgPool3d.

Every kernel becomes a 2-D one. Those over space see [B*T, C, H, W]. Those over time see
[B, C, T, H*W], which is the same memory: in onnxruntime that took 0.4 of the time of a Conv1d over
[B*H*W, C, T], which needs two transpositions. A kernel over both, such as S3D-G's 3x7x7 stem, is a
sum of kernels over space, one for each of its time steps.
"""

from __future__ import annotations

from copy import deepcopy
from functools import reduce
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowprep.errors import FlowprepError
from train.models.layers import HeadPool, Size3

Size2 = tuple[int, int]
PLAIN_CONV = {"dilation": (1, 1, 1), "groups": 1, "padding_mode": "zeros"}
PLAIN_POOL = {"dilation": 1, "ceil_mode": False, "return_indices": False}
HAVE_3D = (
    nn.Conv3d,
    nn.ConvTranspose3d,
    nn.MaxPool3d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool3d,
    HeadPool,
)


def lower(net: nn.Module) -> nn.Module:
    """A copy of `net` with the same weights and outputs, whose convolutions and pools are 2-D.

    Input and output stay as they are, of any size that `net` takes. Raises FlowprepError for a
    layer that cannot be lowered.
    """
    lowered = deepcopy(net)
    for name, module in list(lowered.named_modules()):
        if isinstance(module, HAVE_3D):
            lowered.set_submodule(name, _lowered(name, module))
    return lowered.train(net.training)


def _lowered(name: str, module: nn.Module) -> nn.Module:
    if isinstance(module, nn.Conv3d) and _is_plain(module, PLAIN_CONV):
        return _lowered_conv(module)
    if isinstance(module, nn.MaxPool3d) and _is_plain(module, PLAIN_POOL):
        return LoweredMaxPool(module)
    if isinstance(module, HeadPool):
        return LoweredHeadPool()
    if isinstance(module, nn.AdaptiveAvgPool3d) and module.output_size in (1, (1, 1, 1)):
        return Mean()
    raise FlowprepError(
        f"layer {name} cannot be made of 2-D operations: {module}", "export without --lower"
    )


def _is_plain(module: nn.Module, plain: dict[str, Any]) -> bool:
    values_are_plain = all(getattr(module, name) == value for name, value in plain.items())
    return values_are_plain and not isinstance(module.padding, str)


class Geometry(NamedTuple):
    """Of a convolution or pool, each over T, H, W."""

    kernel: Size3
    stride: Size3
    padding: Size3

    @property
    def over_time(self) -> Geometry2:
        return Geometry2(*((size[0], one) for size, one in zip(self, (1, 1, 0), strict=True)))

    @property
    def over_space(self) -> Geometry2:
        return Geometry2(*(size[1:] for size in self))


class Geometry2(NamedTuple):
    """Of a 2-D convolution or pool."""

    kernel: Size2
    stride: Size2
    padding: Size2

    @property
    def does_nothing(self) -> bool:
        return self == ((1, 1), (1, 1), (0, 0))


def _geometry(module: nn.Conv3d | nn.MaxPool3d) -> Geometry:
    sizes = (module.kernel_size, module.stride, module.padding)
    return Geometry(*(cast(Size3, (s,) * 3 if isinstance(s, int) else s) for s in sizes))


def _lowered_conv(conv: nn.Conv3d) -> nn.Module:
    return (ConvOverTime if _geometry(conv).over_space.does_nothing else ConvOverSpace)(conv)


class ConvOverTime(nn.Module):
    """A kx1x1 convolution that leaves space alone: kx1 over [B, C, T, H*W]."""

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__()
        self.conv = _conv2d(conv.weight[..., 0], conv.bias, _geometry(conv).over_time)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return _over_time(self.conv, x_BCTHW)


class ConvOverSpace(nn.Module):
    """A convolution of any kernel: one over [B*T, C, H, W] for each of its time steps, added up."""

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__()
        self.kernel_t, self.stride_t, self.pad_t = (size[0] for size in _geometry(conv))
        biases = [conv.bias, *[None] * (self.kernel_t - 1)]
        self.convs = nn.ModuleList(
            _conv2d(conv.weight[:, :, t], bias, _geometry(conv).over_space)
            for t, bias in enumerate(biases)
        )

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        if self.pad_t:
            x_BCTHW = F.pad(x_BCTHW, (0, 0, 0, 0, self.pad_t, self.pad_t))
        c, t, h, w = x_BCTHW.shape[1:]
        n_starts = t - self.kernel_t + 1
        x_BTCHW = x_BCTHW.transpose(1, 2)
        parts = [
            conv(x_BTCHW[:, first : first + n_starts : self.stride_t].reshape(-1, c, h, w))
            for first, conv in enumerate(self.convs)
        ]
        y = reduce(torch.add, parts)
        return y.reshape(-1, -(-n_starts // self.stride_t), *y.shape[1:]).transpose(1, 2)


class LoweredMaxPool(nn.Module):
    """A MaxPool3d as one over space, then one over time; either only where it does something."""

    def __init__(self, pool: nn.MaxPool3d) -> None:
        super().__init__()
        self.over_space = _max_pool(_geometry(pool).over_space)
        self.over_time = _max_pool(_geometry(pool).over_time)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        if self.over_space is not None:
            x_BCTHW = _over_space(self.over_space, x_BCTHW)
        return x_BCTHW if self.over_time is None else _over_time(self.over_time, x_BCTHW)


def _max_pool(geometry: Geometry2) -> nn.MaxPool2d | None:
    return None if geometry.does_nothing else nn.MaxPool2d(*geometry)


class LoweredHeadPool(nn.Module):
    """HeadPool as a mean over space, then one over time."""

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        t, h, w = x_BCTHW.shape[2:]
        x_BCTHW = _over_space(nn.AvgPool2d((min(h, 7), min(w, 7)), 1), x_BCTHW)
        return _over_time(nn.AvgPool2d((min(t, 2), 1), 1), x_BCTHW)


class Mean(nn.Module):
    """The mean over T, H, W, which stay as axes of 1."""

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return x_BCTHW.mean((2, 3, 4), keepdim=True)


def _over_space(pool: nn.Module, x_BCTHW: Tensor) -> Tensor:
    c, t, h, w = x_BCTHW.shape[1:]
    y: Tensor = pool(x_BCTHW.reshape(-1, c * t, h, w))
    return y.reshape(-1, c, t, *y.shape[2:])


def _over_time(module: nn.Module, x_BCTHW: Tensor) -> Tensor:
    c, t, h, w = x_BCTHW.shape[1:]
    y: Tensor = module(x_BCTHW.reshape(-1, c, t, h * w))
    return y.reshape(-1, *y.shape[1:3], h, w)


def _conv2d(weight: Tensor, bias: Tensor | None, geometry: Geometry2) -> nn.Conv2d:
    """A Conv2d of these weights [C_out, C_in, kh, kw]."""
    c_out, c_in = weight.shape[:2]
    conv = nn.Conv2d(c_in, c_out, *geometry, device="meta")
    conv.weight = nn.Parameter(weight.detach().contiguous())
    conv.bias = None if bias is None else nn.Parameter(bias.detach())
    return conv
