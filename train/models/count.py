"""Parameters, multiply-adds and feature shapes, layer by layer, without computing anything."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from train.models.base import Tapped, VideoModel


class Parameters(NamedTuple):
    """Numbers of parameters. `total` counts those that stay fixed too."""

    trainable: int
    total: int


def parameters(model: VideoModel) -> dict[str, Parameters]:
    """Of each layer of the chain, of "classifier", and "total". BatchNorm's statistics are none."""
    counts = {name: _parameters(module) for name, module in _parts(model)}
    return {**counts, "total": _parameters(model)}


def macs(model: VideoModel, shape_CTHW: tuple[int, int, int, int]) -> dict[str, int]:
    """Multiply-adds of one input [C, T, H, W]: of each layer, of "classifier", and "total".

    Half of what FlopCounterMode counts, which is convolutions and matrix products alone:
    BatchNorm, ReLU, pooling and the gates' multiplication are not in it.
    """
    on_meta = _on_meta(model)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        on_meta(torch.empty(1, *shape_CTHW, device="meta"))
    flops = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    root = type(model).__name__
    paths = {name: f"{root}.{path}" for name, path in _paths(model).items()}
    found = {name: flops.get(path, 0) // 2 for name, path in paths.items()}
    return {**found, "total": flops[root] // 2}


def tap_shapes(
    model: VideoModel, shape_CTHW: tuple[int, int, int, int]
) -> dict[str, tuple[int, ...]]:
    """[C, T, H, W] of the feature at each named layer, [C] at "pool", for one input."""
    tapped = Tapped(_on_meta(model), list(model.taps))
    with torch.no_grad():
        _, features = tapped(torch.empty(1, *shape_CTHW, device="meta"))
    return {name: tuple(feature.shape[1:]) for name, feature in features.items()}


def _on_meta(model: VideoModel) -> VideoModel:
    return deepcopy(model).to("meta").eval()


def _paths(model: VideoModel) -> dict[str, str]:
    layers = {name: f"layers.{name}" for name, _ in model.layers.named_children()}
    return {**layers, "classifier": "classifier"}


def _parts(model: VideoModel) -> Iterator[tuple[str, nn.Module]]:
    for name, path in _paths(model).items():
        yield name, model.get_submodule(path)


def _parameters(module: nn.Module) -> Parameters:
    sizes = [(p.numel(), p.requires_grad) for p in module.parameters()]
    return Parameters(sum(n for n, trained in sizes if trained), sum(n for n, _ in sizes))
