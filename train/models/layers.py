"""The pieces of S3D and S3D-G.

Every kernel is in a plain nn.Conv3d or nn.MaxPool3d, whose padding is its own, or comes from a
`SamePad3d` before it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size3 = tuple[int, int, int]
ONCE: Size3 = (1, 1, 1)


@dataclass(frozen=True)
class Style:
    """Where the published S3D networks differ."""

    tf_same: bool  # TensorFlow's SAME padding; else (kernel - 1) // 2 on either side
    separable_stem: bool  # 1x7x7 and 7x1x1; else 3x7x7
    temporal_norm: bool  # BatchNorm after temporal convolutions; else a bias
    norm_scale: bool  # BatchNorm learns its weight; else it stays 1
    gated: bool  # self-gating after 2c and after every branch


SLIM = Style(tf_same=True, separable_stem=False, temporal_norm=False, norm_scale=False, gated=True)
"""S3D-G of tensorflow/models research/slim nets/s3dg.py and i3d_utils.py, at its defaults."""

TORCHVISION = Style(
    tf_same=False, separable_stem=True, temporal_norm=True, norm_scale=True, gated=False
)
"""S3D of torchvision/models/video/s3d.py, and of kylemin/S3D before it."""


class SamePad3d(nn.Module):
    """Zeros around [B, C, T, H, W] as TensorFlow's SAME puts them: the odd one at the end.

    Right before a max pool too, for all that is pooled here comes out of a ReLU.
    """

    def __init__(self, kernel: Size3, stride: Size3) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return F.pad(x_BCTHW, same_padding(x_BCTHW.shape[2:], self.kernel, self.stride))

    def extra_repr(self) -> str:
        return f"kernel={self.kernel}, stride={self.stride}"


def same_padding(size: Sequence[int], kernel: Size3, stride: Size3) -> list[int]:
    """Zeros before and after W, H and T, in the order of F.pad, for an output of ceil(n / s)."""
    pads: list[int] = []
    for n, k, s in zip(reversed(size), reversed(kernel), reversed(stride), strict=True):
        total = max((-(-n // s) - 1) * s + k - n, 0)
        pads += [total // 2, total - total // 2]
    return pads


class SelfGating(nn.Module):
    """x * sigmoid(W mean(x)): the mean over T, H, W, a CxC matrix without bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, channels, 1, bias=False)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return x_BCTHW * torch.sigmoid(self.conv(x_BCTHW.mean((2, 3, 4), keepdim=True)))


class HeadPool(nn.Module):
    """The mean over windows of 2x7x7, stride 1; an axis that is shorter is averaged whole."""

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return F.avg_pool3d(x_BCTHW, head_kernel(x_BCTHW.shape[2:]), stride=1)


def head_kernel(size: Sequence[int]) -> Size3:
    """The window of `HeadPool` for a feature of T x H x W."""
    t, h, w = size
    return min(t, 2), min(h, 7), min(w, 7)


class Mixed(nn.Module):
    """An Inception block: four branches over the same input, their channels one after another."""

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branch0, self.branch1, self.branch2, self.branch3 = branches

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        branches = (self.branch0, self.branch1, self.branch2, self.branch3)
        return torch.cat([branch(x_BCTHW) for branch in branches], 1)


@dataclass(frozen=True)
class Maker:
    """Makes the layers of one style. `c_` are channel counts after the width multiplier."""

    style: Style
    bn_momentum: float

    def conv(
        self, c_in: int, c_out: int, kernel: Size3, stride: Size3 = ONCE, *, norm: bool = True
    ) -> nn.Sequential:
        """Convolution, BatchNorm (or a bias), ReLU."""
        pad, padding = self._padding(kernel, stride)
        conv = nn.Conv3d(c_in, c_out, kernel, stride, padding, bias=not norm)
        after = {"norm": self._norm(c_out)} if norm else {}
        return chain({**pad, "conv": conv, **after, "relu": nn.ReLU(inplace=True)})

    def separable(self, c_in: int, c_out: int, size: int, stride: int = 1) -> nn.Sequential:
        """A 1xkxk convolution and a kx1x1 one, each with what follows it."""
        over_space, over_time = (1, size, size), (size, 1, 1)
        spatial = self.conv(c_in, c_out, over_space, (1, stride, stride))
        norm = self.style.temporal_norm
        temporal = self.conv(c_out, c_out, over_time, (stride, 1, 1), norm=norm)
        return chain({"spatial": spatial, "temporal": temporal})

    def pool(self, kernel: Size3, stride: Size3) -> nn.Sequential:
        pad, padding = self._padding(kernel, stride)
        return chain({**pad, "pool": nn.MaxPool3d(kernel, stride, padding)})

    def gated(self, layer: nn.Sequential, channels: int) -> nn.Sequential:
        """`layer` with a self-gating at its end, where the style has them."""
        if self.style.gated:
            layer.add_module("gate", SelfGating(channels))
        return layer

    def mixed(self, c_in: int, outs: Iterable[int]) -> Mixed:
        """An Inception block. `outs`: channels of 0a; 1a, 1b; 2a, 2b; 3b, as in d3d.md."""
        b0, b1a, b1b, b2a, b2b, b3 = outs
        pool = self.pool((3, 3, 3), ONCE)
        branches = (
            self.gated(self.conv(c_in, b0, ONCE), b0),
            self._separable_branch(c_in, b1a, b1b),
            self._separable_branch(c_in, b2a, b2b),
            chain({"pool": pool, "point": self.gated(self.conv(c_in, b3, ONCE), b3)}),
        )
        return Mixed(branches)

    def _separable_branch(self, c_in: int, c_mid: int, c_out: int) -> nn.Sequential:
        separable = self.gated(self.separable(c_mid, c_out, 3), c_out)
        return chain({"reduce": self.conv(c_in, c_mid, ONCE), "sep": separable})

    def _norm(self, channels: int) -> nn.BatchNorm3d:
        norm = nn.BatchNorm3d(channels, eps=1e-3, momentum=self.bn_momentum)
        norm.weight.requires_grad_(self.style.norm_scale)
        return norm

    def _padding(self, kernel: Size3, stride: Size3) -> tuple[dict[str, nn.Module], Size3]:
        """A module to put before, where the padding depends on the input's size; own padding."""
        if self.style.tf_same and stride != ONCE:
            return {"pad": SamePad3d(kernel, stride)}, (0, 0, 0)
        t, h, w = kernel
        return {}, ((t - 1) // 2, (h - 1) // 2, (w - 1) // 2)


def chain(layers: dict[str, nn.Module]) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


def initialize(layers: nn.Module) -> None:
    """Slim's values for training from scratch, for both styles.

    Convolutions over time pass their input through: identity at the kernel's centre, bias 0
    (i3d_utils.py `center_initializer`, "critical for a desired convergence behavior"). All others,
    gating included: normal of deviation 0.01, drawn again beyond two deviations (s3dg.py
    `trunc_normal(0.01)`). BatchNorm: weight 1, bias 0, as PyTorch makes it.
    """
    for module in layers.modules():
        if isinstance(module, nn.Conv3d) and module.kernel_size[0] > module.kernel_size[1]:
            _pass_through(module)
        elif isinstance(module, nn.Conv3d):
            nn.init.trunc_normal_(module.weight, std=0.01, a=-0.02, b=0.02)


def _pass_through(conv: nn.Conv3d) -> None:
    nn.init.dirac_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
