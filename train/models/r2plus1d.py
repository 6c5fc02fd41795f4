"""R(2+1)D-18 (Tran et al., arXiv 1711.11248) as torchvision keeps it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from flowprep.errors import FlowprepError
from train.models.base import Classifier, ModelConfig, VideoModel
from train.models.layers import chain

LAYERS = ("stem", "layer1", "layer2", "layer3", "layer4")


def build_r2plus1d(config: ModelConfig) -> VideoModel:
    """torchvision's r2plus1d_18 with its own initialisation, our classifier behind it.

    Raises FlowprepError when torchvision is missing or does not import, or for another width.
    """
    if config.width != 1:
        what = f"r2plus1d with width = {config.width:g} is not possible"
        raise FlowprepError(what, "allowed: 1; s3dg and s3d can be narrower")
    net = _torchvision_video().r2plus1d_18(weights=None)
    net.stem[0] = _first_conv(net.stem[0], config.in_channels)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.momentum = config.bn_momentum
    layers = chain({**{name: getattr(net, name) for name in LAYERS}, "pool": net.avgpool})
    return VideoModel(layers, {name: name for name in LAYERS}, Classifier(512, config))


def _torchvision_video() -> Any:
    try:
        from torchvision.models import video
    except (ImportError, OSError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise FlowprepError(
            f"network 'r2plus1d' cannot be made here: {error}",
            f"pip install torchvision, in the version made for torch {torch.__version__}",
        ) from error
    return video


def _first_conv(conv: nn.Conv3d, in_channels: int) -> nn.Conv3d:
    """The same convolution from `in_channels`, initialised as torchvision initialises it."""
    new = nn.Conv3d(
        in_channels, conv.out_channels, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    return new
