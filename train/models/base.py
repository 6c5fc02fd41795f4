"""The registry of networks, their configuration, and features at named layers.

A network sees float [B, C, T, H, W] in -1..1 (`train.data.batch`) and gives logits [B, K].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from flowprep.errors import FlowprepError


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What makes a network, apart from its weights. JSON values: stored in every checkpoint.

    `bn_momentum` is PyTorch's: the weight of the newest batch in BatchNorm's moving statistics.
    TF-slim's decay of 0.999 would be 0.001 here, and 0.999^1000 = 37 % of the initial statistics
    would be left after 1,000 steps; at 0.05 it is under 1 % after 100.

    Raises FlowprepError for a value that is not possible.
    """

    arch: str = "s3dg"
    in_channels: int = 3  # 3 for RGB, 2 for flow
    n_classes: int = 400
    width: float = 1.0  # of every layer's channels, none below 16
    dropout: float = 0.2
    bn_momentum: float = 0.05

    def __post_init__(self) -> None:
        if self.arch not in MODELS:
            raise FlowprepError(f"unknown network {self.arch!r}", f"allowed: {', '.join(MODELS)}")
        self._require_whole("in_channels")
        self._require_whole("n_classes")
        self._require("width", 0 < self.width <= 8, "above 0, at most 8")
        self._require("dropout", 0 <= self.dropout < 1, "from 0, below 1")
        self._require("bn_momentum", 0 < self.bn_momentum <= 1, "above 0, at most 1")

    def _require_whole(self, name: str) -> None:
        value = getattr(self, name)
        self._require(name, type(value) is int and value > 0, "a whole number of at least 1")

    def _require(self, name: str, possible: bool, allowed: str) -> None:
        if not possible:
            what = f"a network with {name} = {getattr(self, name)!r} is not possible"
            raise FlowprepError(what, f"allowed: {allowed}")


@dataclass(frozen=True)
class ModelEntry:
    """Where a network is made: "module:function", called with a ModelConfig."""

    target: str
    summary: str

    def load(self) -> Any:
        module, _, attribute = self.target.partition(":")
        return getattr(import_module(module), attribute)


MODELS: dict[str, ModelEntry] = {
    "s3dg": ModelEntry(
        "train.models.s3d:build_s3dg", "S3D-G as in TF-slim, D3D's backbone: separable and gated"
    ),
    "s3d": ModelEntry(
        "train.models.s3d:build_s3d", "S3D as in torchvision: separable stem, no gates"
    ),
    "r2plus1d": ModelEntry(
        "train.models.r2plus1d:build_r2plus1d", "R(2+1)D-18 from torchvision, full width only"
    ),
}


class VideoModel(nn.Module):
    """A chain of named layers that ends in "pool", and a classifier.

    `taps` maps each public layer name to the submodule (for `get_submodule`) whose output it is.
    """

    taps: dict[str, str]

    def __init__(self, layers: nn.Sequential, taps: dict[str, str], classifier: nn.Module) -> None:
        """`taps`: public name -> name of a layer of the chain; "pool" is added."""
        super().__init__()
        self.layers = layers
        self.classifier = classifier
        self.taps = {name: f"layers.{layer}" for name, layer in {**taps, "pool": "pool"}.items()}

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Float [B, C, T, H, W] in -1..1 -> logits [B, K]."""
        logits: Tensor = self.classifier(self.layers(x_BCTHW))
        return logits


class Classifier(nn.Module):
    """Dropout, a 1x1x1 convolution with bias, and the mean over what pooling left of T, H, W."""

    def __init__(self, c_in: int, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.conv = nn.Conv3d(c_in, config.n_classes, 1)
        nn.init.xavier_uniform_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        logits_BKTHW: Tensor = self.conv(self.dropout(x_BCTHW))
        return logits_BKTHW.mean((2, 3, 4))


class Tapped(nn.Module):
    """A network that also gives its features at named layers: (logits [B, K], {name: feature}).

    A feature is [B, C, T, H, W] at that layer; "pool" is the pooled feature before dropout and
    classifier, averaged over time and space to [B, C]. They are outputs of `forward`, so that
    DistributedDataParallel and torch.compile see them. Raises FlowprepError for an unknown name.
    """

    def __init__(self, model: VideoModel, names: Sequence[str]) -> None:
        super().__init__()
        unknown = [name for name in names if name not in model.taps]
        if unknown:
            allowed = f"allowed: {', '.join(model.taps)}"
            raise FlowprepError(f"the network has no layer {unknown[0]!r}", allowed)
        self.model = model
        self.layer_of = {name: model.taps[name].removeprefix("layers.") for name in names}

    def forward(self, x_BCTHW: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        found, x = {}, x_BCTHW
        for layer, module in self.model.layers.named_children():
            x = module(x)
            if layer in self.layer_of.values():
                found[layer] = x.mean((2, 3, 4)) if layer == "pool" else x
        return self.model.classifier(x), {n: found[layer] for n, layer in self.layer_of.items()}


def build(config: ModelConfig) -> VideoModel:
    """The network of `config`, newly initialised from torch's global random state.

    Raises FlowprepError when the network cannot be made with these values, or not here.
    """
    model: VideoModel = MODELS[config.arch].load()(config)
    return model


def head_names(model: VideoModel) -> set[str]:
    """Names, as in the state dict, of the classifier's parameters; all others are the backbone."""
    return {f"classifier.{name}" for name, _ in model.classifier.named_parameters()}
