"""How each source of published weights names what we have. A row per difference, applied in order.

The names and shapes of each source are listed under `train/models/names/`.

torchvision's `S3D_Weights.KINETICS400_V1` was trained on RGB with another mean and scale than
-1..1 (`rgb_mean`, `rgb_std`, from its transforms/_presets.py) and evaluated on 128 frames at 15
fps, short side 256, crop 224. kylemin's takes RGB in -1..1 (main.py: 2x/255 - 1), as everything
here. D3D takes 64 frames of 224x224, RGB in -1..1 (d3dhelper issue 3); the flow networks released
beside it have 2 channels.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

Rules = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Source:
    """A source: how it is recognised, which network it fills, how it calls our tensors."""

    name: str
    arch: str
    first: str  # the key of the first convolution, which only this source has
    head: str  # the key of the classifier's weight
    rules: Rules  # (ours, theirs), replaced in this order
    constants: dict[str, float]  # the ends of our names that it may not have, and their value
    rgb_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    rgb_std: tuple[float, ...] = (0.5, 0.5, 0.5)  # so that 0..1 becomes -1..1

    def key_of(self, name: str) -> str:
        """What the source calls our tensor `name`."""
        for ours, theirs in self.rules:
            name = name.replace(ours, theirs)
        return name

    def constant_of(self, name: str) -> float | None:
        """The value of our tensor `name` in a file without it; None when it must be there."""
        return next((v for end, v in self.constants.items() if name.endswith(end)), None)


def _numbered(prefix: str) -> Rules:
    """torchvision and kylemin count their layers, pools included."""
    mixed = ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")
    names = ("conv_1a", "conv_2b", "conv_2c", *(f"mixed_{m}" for m in mixed))
    indices = (0, 2, 3, 5, 6, 8, 9, 10, 11, 12, 14, 15)
    return tuple((f"layers.{n}.", f"{prefix}.{i}.") for n, i in zip(names, indices, strict=True))


NOT_COUNTED = {"norm.num_batches_tracked": 0.0}
"""Older PyTorch did not count; with a fixed momentum nothing depends on it."""

TORCHVISION_S3D = Source(
    name="torchvision S3D",
    arch="s3d",
    first="features.0.0.0.weight",
    head="classifier.1.weight",
    rules=(
        ("classifier.conv.", "classifier.1."),
        *_numbered("features"),
        (".reduce.", ".0."),
        (".sep.", ".1."),
        (".point.", ".1."),
        (".spatial.", ".0."),
        (".temporal.", ".1."),
        (".conv.", ".0."),
        (".norm.", ".1."),
    ),
    constants=NOT_COUNTED,
    rgb_mean=(0.43216, 0.394666, 0.37645),
    rgb_std=(0.22803, 0.22145, 0.216989),
)

KYLEMIN_S3D = Source(
    name="kylemin S3D",
    arch="s3d",
    first="base.0.conv_s.weight",
    head="fc.0.weight",
    rules=(
        ("classifier.conv.", "fc.0."),
        *_numbered("base"),
        (".branch0.", ".branch0.0."),
        (".reduce.", ".0."),
        (".sep.", ".1."),
        (".point.", ".1."),
        (".spatial.conv.", ".conv_s."),
        (".spatial.norm.", ".bn_s."),
        (".temporal.conv.", ".conv_t."),
        (".temporal.norm.", ".bn_t."),
        (".norm.", ".bn."),
    ),
    constants=NOT_COUNTED,
)

D3D_TF = Source(
    name="D3D or S3D-G from TensorFlow",
    arch="s3dg",
    first="InceptionV1/Conv2d_1a_7x7/weights",
    head="InceptionV1/Logits/Conv2d_0c_1x1/weights",
    rules=(
        ("classifier.conv.", "InceptionV1/Logits/Conv2d_0c_1x1/conv."),
        ("layers.conv_1a.", "InceptionV1/Conv2d_1a_7x7/"),
        ("layers.conv_2b.", "InceptionV1/Conv2d_2b_1x1/"),
        ("layers.conv_2c.", "InceptionV1/Conv2d_2c_3x3/"),
        ("layers.mixed_", "InceptionV1/Mixed_"),
        (".branch0.", "/Branch_0/Conv2d_0a_1x1/"),
        (".branch1.", "/Branch_1/"),
        (".branch2.", "/Branch_2/"),
        (".branch3.", "/Branch_3/"),
        ("reduce.", "Conv2d_0a_1x1/"),
        ("sep.", "Conv2d_0b_3x3/"),
        ("point.", "Conv2d_0b_1x1/"),
        ("spatial.", ""),
        ("temporal.", "temporal/"),
        ("gate.conv.", "self_gating/transformer_W/conv."),
        ("conv.weight", "weights"),
        ("conv.bias", "biases"),
        ("norm.bias", "BatchNorm/beta"),
        ("norm.running_mean", "BatchNorm/moving_mean"),
        ("norm.running_var", "BatchNorm/moving_variance"),
    ),
    constants={"norm.weight": 1.0, **NOT_COUNTED},
)

SOURCES = (TORCHVISION_S3D, KYLEMIN_S3D, D3D_TF)


def like_pytorch(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """TensorFlow's arrays as PyTorch has them, without what only training needs.

    Kernels DHWIO become OIDHW; vectors stored as [1, 1, 1, 1, C] become [C]; global_step and the
    optimizer's Momentum slots are left out.
    """
    kept = {k: v for k, v in tensors.items() if k != "global_step" and not k.endswith("/Momentum")}
    return {key: _like_pytorch(key, value) for key, value in kept.items()}


def _like_pytorch(key: str, value: Tensor) -> Tensor:
    if value.ndim != 5:
        return value
    if "/BatchNorm/" in key and value.shape[:4].numel() == 1:
        return value.flatten()
    return value.permute(4, 3, 0, 1, 2).contiguous()
