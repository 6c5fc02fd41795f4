"""Published weights to our configuration and state dict."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from flowprep.errors import FlowprepError
from train.models.base import ModelConfig, build
from train.models.importers.files import read_tensors
from train.models.importers.sources import D3D_TF, SOURCES, Source, like_pytorch

State = dict[str, Tensor]
FIRST_CONV = "layers.conv_1a.spatial.conv.weight"
FIRST_MEAN = "layers.conv_1a.spatial.norm.running_mean"


def import_weights(path: Path) -> tuple[ModelConfig, State]:
    """The network in a published file: torchvision S3D, kylemin S3D, D3D or S3D-G (TensorFlow).

    The state dict fits `build(config)` with strict=True and takes RGB in -1..1 (flow / 20 px).
    A TensorFlow checkpoint comes as .npz, made where TensorFlow is installed:

        r = tf.train.load_checkpoint("d3d_kinetics_400/model.ckpt")
        np.savez("d3d.npz", **{k: r.get_tensor(k) for k in r.get_variable_to_shape_map()})

    Raises FlowprepError for a file that cannot be read or is of no known source, and for a tensor
    that is missing, left over or of another shape.
    """
    tensors = read_tensors(path)
    try:
        source = recognise(tensors)
        config, state = convert(source, tensors)
    except FlowprepError as error:
        raise FlowprepError(f"{path}: {error.message}", error.hint) from error
    return config, to_unit_range(source, state) if config.in_channels == 3 else state


def recognise(tensors: State) -> Source:
    """The source that has these keys. Raises FlowprepError when there is none."""
    for source in SOURCES:
        if source.first in tensors:
            return source
    raise FlowprepError(
        f"no known source of weights has these names: {_first_of(tensors)}",
        "recognised: " + "; ".join(f"{s.name} (has {s.first})" for s in SOURCES),
    )


def convert(source: Source, tensors: State) -> tuple[ModelConfig, State]:
    """The same network under our names, its numbers as they are: every tensor used exactly once.

    Raises FlowprepError naming a tensor that is missing, left over or of another shape.
    """
    left = like_pytorch(tensors) if source is D3D_TF else dict(tensors)
    config = _config(source, left)
    with torch.device("meta"):
        wanted = build(config).state_dict()
    state = {name: _take(source, left, name, like) for name, like in wanted.items()}
    if left:
        what = f"{len(left)} tensors that {source.name} does not have: {_first_of(left)}"
        raise FlowprepError(what, "give the published file, without anything added")
    return config, state


def to_unit_range(source: Source, state: State) -> State:
    """Let the first layers take RGB in -1..1 in place of what the source was trained on.

    Its input was (rgb01 - mean) / std = x / (2 std) + (0.5 - mean) / std for our x. The factor
    goes into the first convolution, the shift out of the BatchNorm mean behind it. Exact but for
    the padding: three pixels at each border see our mid-gray where the source had its mean.
    """
    if source.rgb_std == (0.5, 0.5, 0.5):
        return state
    mean, std = (torch.tensor(v).view(1, 3, 1, 1, 1) for v in (source.rgb_mean, source.rgb_std))
    weight = state[FIRST_CONV]
    shift = (weight * (0.5 - mean) / std).sum((1, 2, 3, 4))
    return {**state, FIRST_CONV: weight / (2 * std), FIRST_MEAN: state[FIRST_MEAN] - shift}


def _config(source: Source, tensors: State) -> ModelConfig:
    first, head = _get(source, tensors, source.first), _get(source, tensors, source.head)
    for key, tensor in ((source.first, first), (source.head, head)):
        if tensor.ndim != 5:
            what = f"{key} has the shape {list(tensor.shape)}, {source.name} has 5 axes there"
            raise FlowprepError(what, "give the published file")
    return ModelConfig(arch=source.arch, in_channels=first.shape[1], n_classes=head.shape[0])


def _take(source: Source, left: State, name: str, like: Tensor) -> Tensor:
    """Our tensor `name`, taken out of `left`, or the constant that stands for it."""
    key, constant = source.key_of(name), source.constant_of(name)
    if key not in left and constant is not None:
        return torch.full(like.shape, constant, dtype=like.dtype)
    value = _get(source, left, key)
    if value.shape != like.shape:
        what = f"{key} has the shape {list(value.shape)}, {source.name} has {list(like.shape)}"
        raise FlowprepError(what, "axes as in PyTorch: out, in, T, H, W")
    return left.pop(key).to(like.dtype)


def _get(source: Source, tensors: State, key: str) -> Tensor:
    if key not in tensors:
        what = f"{key} is missing, which {source.name} has"
        raise FlowprepError(what, "give the whole published file")
    return tensors[key]


def _first_of(tensors: State) -> str:
    return ", ".join(sorted(tensors)[:3]) + (", ..." if len(tensors) > 3 else "")
