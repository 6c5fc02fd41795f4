"""S3D-G and S3D (Xie et al., Rethinking Spatiotemporal Feature Learning, arXiv 1712.04851).

| layer | kernel, stride | channels | T x H x W of 64x224x224 |
|---|---|---|---|
| conv_1a | 3x7x7 (`s3d`: 1x7x7, 7x1x1), 2 | 64 | 32x112x112 |
| pool_2a | 1x3x3, 1x2x2 | 64 | 32x56x56 |
| conv_2b | 1x1x1 | 64 | 32x56x56 |
| conv_2c | 1x3x3, 3x1x1 | 192 | 32x56x56 |
| pool_3a | 1x3x3, 1x2x2 | 192 | 32x28x28 |
| mixed_3b, 3c | | 256, 480 | 32x28x28 |
| pool_4a | 3x3x3, 2 | 480 | 16x14x14 |
| mixed_4b .. 4f | | 512, 512, 512, 528, 832 | 16x14x14 |
| pool_5a | 2x2x2, 2 | 832 | 8x7x7 |
| mixed_5b, 5c | | 832, 1024 | 8x7x7 |
| pool | mean of 2x7x7, 1 | 1024 | 7x1x1 |
"""

from __future__ import annotations

from torch import nn

from train.models.base import Classifier, ModelConfig, VideoModel
from train.models.layers import (
    SLIM,
    TORCHVISION,
    HeadPool,
    Maker,
    Style,
    chain,
    initialize,
)

MIXED: dict[str, tuple[int, int, int, int, int, int]] = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}
"""Channels of each Inception block's convolutions: 0a; 1a, 1b; 2a, 2b; 3b."""

MIN_CHANNELS = 16
TAPS = {
    "1a": "conv_1a",
    "2b": "conv_2b",
    "2c": "conv_2c",
    "3A": "pool_3a",
    **{name: f"mixed_{name}" for name in MIXED},
}


def build_s3dg(config: ModelConfig) -> VideoModel:
    """S3D-G as in TF-slim (`layers.SLIM`). Takes any size of input."""
    return _build(config, SLIM)


def build_s3d(config: ModelConfig) -> VideoModel:
    """S3D as in torchvision (`layers.TORCHVISION`). Input of at least 7x27x27."""
    return _build(config, TORCHVISION)


def _build(config: ModelConfig, style: Style) -> VideoModel:
    """The classifier starts as slim's: Xavier uniform, bias 0; the rest as `initialize` says."""
    maker = Maker(style, config.bn_momentum)
    c64, c192 = scaled((64, 192), config.width)
    layers = chain(
        {
            "conv_1a": _stem(maker, config.in_channels, c64),
            "pool_2a": maker.pool((1, 3, 3), (1, 2, 2)),
            "conv_2b": maker.conv(c64, c64, (1, 1, 1)),
            "conv_2c": maker.gated(maker.separable(c64, c192, 3), c192),
            "pool_3a": maker.pool((1, 3, 3), (1, 2, 2)),
        }
    )
    c_out = _add_mixed(layers, maker, c192, config.width)
    layers.add_module("pool", HeadPool())
    initialize(layers)
    return VideoModel(layers, TAPS, Classifier(c_out, config))


def _stem(maker: Maker, c_in: int, c_out: int) -> nn.Sequential:
    if maker.style.separable_stem:
        return maker.separable(c_in, c_out, 7, stride=2)
    return maker.conv(c_in, c_out, (3, 7, 7), (2, 2, 2))


def _add_mixed(layers: nn.Sequential, maker: Maker, c_in: int, width: float) -> int:
    """The Inception blocks, with pools before 4b and 5b; returns the channels of the last."""
    pools = {"4b": ("pool_4a", 3), "5b": ("pool_5a", 2)}
    for name, plan in MIXED.items():
        if name in pools:
            pool, k = pools[name]
            layers.add_module(pool, maker.pool((k, k, k), (2, 2, 2)))
        outs = scaled(plan, width)
        layers.add_module(f"mixed_{name}", maker.mixed(c_in, outs))
        b0, _, b1b, _, b2b, b3 = outs
        c_in = b0 + b1b + b2b + b3
    return c_in


def scaled(channels: tuple[int, ...], width: float) -> tuple[int, ...]:
    """slim's depth_multiplier with min_depth 16."""
    return tuple(max(int(c * width), MIN_CHANNELS) for c in channels)
