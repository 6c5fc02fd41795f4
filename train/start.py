"""The network a run starts from: new, or with the weights of another run or source."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from flowprep.errors import FlowprepError
from train.checkpoint import Modality, fill, load_meta, load_weights, weights_of
from train.config import Net
from train.models.base import ModelConfig, VideoModel, build, head_names
from train.models.importers.load import import_weights

CHANNELS: dict[Modality, int] = {"rgb": 3, "flow": 2}
OURS = ".safetensors"


def model_config(net: Net, modality: Modality, n_classes: int) -> ModelConfig:
    """The network of a run. Raises FlowprepError where there is none such."""
    return ModelConfig(
        arch=net.arch,
        in_channels=CHANNELS[modality],
        n_classes=n_classes,
        width=net.width,
        dropout=net.dropout,
        bn_momentum=net.bn_momentum,
    )


def make_net(net: Net, config: ModelConfig) -> VideoModel:
    """The network of `config`, from torch's random state or from `net.init`.

    Raises FlowprepError where the weights of `net.init` do not fit.
    """
    if net.reset_head and not net.init:
        raise FlowprepError("--reset-head needs --init", "every new network has a new classifier")
    model = build(config)
    if net.init:
        _fill_from(model, config, net)
    return model


def _fill_from(model: VideoModel, config: ModelConfig, net: Net) -> None:
    theirs, weights = _load(net.init)
    _check_fits(config, theirs, net)
    if net.reset_head:
        kept = model.state_dict()
        weights = weights | {name: kept[name] for name in head_names(model)}
    fill(model, weights, net.init)


def _load(init: str) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Config and weights of one of our runs, or of a checkpoint that an importer knows."""
    path = Path(init)
    if path.is_dir() or path.suffix == OURS:
        path = weights_of(init)
        return load_meta(path).model, load_weights(path)
    return import_weights(path)


def _check_fits(mine: ModelConfig, theirs: ModelConfig, net: Net) -> None:
    """Raise FlowprepError, naming the difference, unless the weights are of such a network."""
    for name, flag in (("arch", "--arch"), ("width", "--width"), ("in_channels", "")):
        ours, other = getattr(mine, name), getattr(theirs, name)
        if ours != other:
            raise FlowprepError(
                f"--init {net.init} has {name} {other}, this network has {ours}",
                f"give {flag} {other}" if flag else "RGB has 3 channels, flow has 2",
            )
    if mine.n_classes != theirs.n_classes and not net.reset_head:
        raise FlowprepError(
            f"--init {net.init} knows {theirs.n_classes} classes, the dataset has {mine.n_classes}",
            "give --reset-head to start with a new classifier",
        )


def known_classes(net: Net) -> list[str] | None:
    """The class names of `net.init`, in its order; None where they do not bind."""
    path = Path(net.init)
    if not net.init or net.reset_head or not (path.is_dir() or path.suffix == OURS):
        return None
    return load_meta(weights_of(net.init)).classes
