"""Decoders that read flow off a feature, one time step at a time, and what they are judged by.

How much motion a feature holds is measured as in D3D (arXiv 1812.08249): a decoder that cannot see
two time steps at once predicts flow from it. That much of the article is known to us; kernels,
widths, activations and training of its decoders are not, and those below are ours. `pwc` is the
estimator of PWC-Net as NVlabs/PWC-Net has it (PyTorch/models/PWCNet.py: `conv2_0` to
`predict_flow2`), without warping, cost volume and context network.

Flow is dx to the right, dy downward, in pixels of the input per frame step: of the picture the
network sees, not of the feature's grid. Layers have different grids; their errors compare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowprep.errors import FlowprepError
from train.models.base import VideoModel
from train.models.count import tap_shapes

WIDTHS = (128, 128, 96, 64, 32)
LEAK = 0.1
ANY_THW = (16, 64, 64)
"""An input large enough for every network here."""


class EachStep(nn.Module):
    """Applies a network of features to each time step alone.

    Time is folded into the batch, so that the network meets an axis of length one: whatever its
    kernels are, no step can see another. Weights stay those of 3-D convolutions, as the backbone's.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, feature_BCTHW: Tensor) -> Tensor:
        """Float [B, C, T, H, W] -> flow [B, 2, T, H, W], pixels of the input per frame step."""
        steps_NCHW = feature_BCTHW.transpose(1, 2).flatten(0, 1)
        flow_N2HW = self.net(steps_NCHW.unsqueeze(2)).squeeze(2)
        return flow_N2HW.unflatten(0, (len(feature_BCTHW), -1)).transpose(1, 2)


class Dense(nn.Module):
    """PWC-Net's dense block: each layer sees what came in and what all layers before it gave."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        seen = [channels + sum(WIDTHS[:i]) for i in range(len(WIDTHS) + 1)]
        self.layers = nn.ModuleList(map(_conv, seen, WIDTHS))
        self.predict = _predict(seen[-1], 3)

    def forward(self, x_NC1HW: Tensor) -> Tensor:
        for layer in self.layers:
            x_NC1HW = torch.cat([F.leaky_relu(layer(x_NC1HW), LEAK), x_NC1HW], 1)
        flow_N21HW: Tensor = self.predict(x_NC1HW)
        return flow_N21HW


def simple(channels: int) -> nn.Module:
    """One 1x1x1 convolution."""
    return _predict(channels, 1)


def spatial(channels: int) -> nn.Module:
    """1x3x3 convolutions to 128, 128, 96, 64 and 32 channels with ReLU, and one to flow."""
    layers: list[nn.Module] = []
    for seen, width in zip((channels, *WIDTHS), WIDTHS, strict=False):
        layers += [_conv(seen, width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, _predict(WIDTHS[-1], 3))


def pwc(channels: int) -> nn.Module:
    """The same widths, densely connected, with LeakyReLU of slope 0.1."""
    return Dense(channels)


DECODERS: dict[str, Callable[[int], nn.Module]] = {"simple": simple, "spatial": spatial, "pwc": pwc}


def build_decoder(name: str, channels: int) -> nn.Module:
    """A decoder of features [B, channels, T, H, W] to flow [B, 2, T, H, W] in pixels of the input.

    Hidden layers start as PWCNet.py's, normal with variance 2 / fan-in and bias 0; the last one is
    zero, so that an untrained decoder predicts zero flow. Raises FlowprepError for another name.
    """
    if name not in DECODERS:
        raise FlowprepError(f"unknown decoder {name!r}", f"allowed: {', '.join(DECODERS)}")
    return EachStep(DECODERS[name](channels))


def _conv(c_in: int, c_out: int) -> nn.Conv3d:
    conv = nn.Conv3d(c_in, c_out, (1, 3, 3), padding=(0, 1, 1))
    nn.init.kaiming_normal_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def _predict(c_in: int, size: int) -> nn.Conv3d:
    conv = nn.Conv3d(c_in, 2, (1, size, size), padding=(0, size // 2, size // 2))
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def feature_channels(model: VideoModel, layer: str) -> int:
    """Channels of the feature at a named layer of `model`; nothing is computed.

    Raises FlowprepError for a layer that it has not, or that has no grid to predict flow on.
    """
    if layer not in model.taps or layer == "pool":
        allowed = ", ".join(name for name in model.taps if name != "pool")
        raise FlowprepError(f"no flow can be read off layer {layer!r}", f"allowed: {allowed}")
    seen = next(model.parameters()).shape[1]
    return tap_shapes(model, (seen, *ANY_THW))[layer][0]


def flow_target(flow_B2THW_px: Tensor, size_THW: Sequence[int]) -> Tensor:
    """What a decoder should predict on a grid: float [B, 2, T', H', W'], in the unit of the input.

    Each cell is the mean over its share of the picture and of the frames: step t' of T' = T / 2 is
    the mean of flows 2t' and 2t' + 1, the steps between the frames 2t' to 2t' + 2 that a stem of
    stride 2 sees there. Where sizes do not divide, cell i of n takes floor(i N / n) up to, not
    with, ceil((i + 1) N / n), so that neighbours share a border. Values are not divided by the
    shrinking of the grid.
    """
    t, h, w = size_THW
    return F.adaptive_avg_pool3d(flow_B2THW_px, (t, h, w))


def end_point_errors(flow_B2THW: Tensor, target_B2THW: Tensor) -> Tensor:
    """Lengths of the differences, float32 [B, T, H, W], in the unit of both. Gradient 0 at 0."""
    return torch.linalg.vector_norm(flow_B2THW.float() - target_B2THW.float(), dim=1)


def epe(flow_B2THW: Tensor, target_B2THW: Tensor) -> Tensor:
    """Mean end-point error, a scalar, in the unit of both."""
    return end_point_errors(flow_B2THW, target_B2THW).mean()
