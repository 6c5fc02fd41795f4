"""Parameters, multiply-adds and shapes against the checklist of d3d.md, section 3."""

from __future__ import annotations

from itertools import accumulate

import pytest
import torch
from torch import nn

from train.models.base import ModelConfig, VideoModel, build
from train.models.count import macs, parameters, tap_shapes

FULL = (64, 224, 224)

CUMULATIVE = {  # parameters with BatchNorm's weights, GMACs, of slim's S3D-G on 64x224x224
    "conv_1a": (28_352, 11.33),
    "conv_2c": (291_200, 33.94),
    "mixed_3b": (521_984, 39.14),
    "mixed_3c": (1_067_296, 51.11),
    "mixed_4b": (1_655_296, 52.68),
    "mixed_4c": (2_327_600, 54.52),
    "mixed_4d": (3_113_120, 56.69),
    "mixed_4e": (4_051_584, 59.31),
    "mixed_4f": (5_412_928, 62.94),
    "mixed_5b": (6_949_376, 63.46),
    "mixed_5c": (9_116_128, 64.18),
    "classifier": (9_526_128, 64.19),
}

SHAPES = {  # [C, T, H, W] after each layer for 64x224x224
    "1a": (64, 32, 112, 112),
    "2b": (64, 32, 56, 56),
    "2c": (192, 32, 56, 56),
    "3A": (192, 32, 28, 28),
    "3b": (256, 32, 28, 28),
    "3c": (480, 32, 28, 28),
    "4b": (512, 16, 14, 14),
    "4c": (512, 16, 14, 14),
    "4d": (512, 16, 14, 14),
    "4e": (528, 16, 14, 14),
    "4f": (832, 16, 14, 14),
    "5b": (832, 8, 7, 7),
    "5c": (1024, 8, 7, 7),
    "pool": (1024,),
}


def on_meta(arch: str = "s3dg", **settings: float) -> VideoModel:
    with torch.device("meta"):
        return build(ModelConfig(arch=arch, **settings))  # type: ignore[arg-type]


def gmacs(model: VideoModel, channels: int, t: int, h: int, w: int) -> float:
    return macs(model, (channels, t, h, w))["total"] / 1e9


def cumulative(counts: dict[str, int]) -> dict[str, int]:
    return dict(zip(counts, accumulate(counts.values()), strict=True))


@pytest.mark.parametrize(
    ("settings", "trainable", "total"),
    [
        ({}, 9_518_848, 9_526_128),
        ({"in_channels": 2}, 9_509_440, 9_516_720),
        ({"n_classes": 600}, 9_731_128 - 7_280, 9_731_128),
        ({"n_classes": 51}, 9_168_403 - 7_280, 9_168_403),
        ({"n_classes": 101}, 9_219_653 - 7_280, 9_219_653),
    ],
)
def test_s3dg_has_slims_parameters(settings: dict[str, float], trainable: int, total: int) -> None:
    assert parameters(on_meta(**settings))["total"] == (trainable, total)


@pytest.mark.parametrize(("width", "millions"), [(0.25, "0.708"), (0.5, "2.50")])
def test_narrower_networks_have_slims_parameters(width: float, millions: str) -> None:
    trainable, _ = parameters(on_meta(width=width))["total"]
    assert f"{trainable / 1e6:.{len(millions) - 2}f}" == millions


def test_torchvisions_style_has_torchvisions_parameters() -> None:
    counts = parameters(on_meta("s3d"))
    assert counts["total"] == (8_320_048, 8_320_048)
    assert counts["total"].total - counts["classifier"].total == 7_910_048


def test_gates_and_batch_norms_are_as_many_as_in_slim() -> None:
    model = on_meta()
    gates = [p.numel() for name, p in model.named_parameters() if ".gate." in name]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm3d)]
    moving = [v.numel() for n, v in model.named_buffers() if n.endswith(("mean", "var"))]
    assert (len(gates), sum(gates)) == (37, 1_219_328)
    assert (len(norms), sum(moving)) == (57, 14_560)
    assert {norm.eps for norm in norms} == {1e-3}


def test_every_layer_costs_what_the_checklist_says() -> None:
    model = on_meta()
    counted = cumulative({k: v.total for k, v in parameters(model).items() if k != "total"})
    work = macs(model, (3, *FULL))
    total = work.pop("total")
    done = cumulative(work)
    assert {name: counted[name] for name in CUMULATIVE} == {
        n: p for n, (p, _) in CUMULATIVE.items()
    }
    for name, (_, expected) in CUMULATIVE.items():  # rounded to 0.01, the last one up from 64.185
        assert done[name] / 1e9 == pytest.approx(expected, abs=0.0055), name
    assert total == done["classifier"]


def test_flow_costs_less_and_the_separable_stem_more() -> None:
    assert gmacs(on_meta(in_channels=2), 2, *FULL) == pytest.approx(60.41, abs=0.005)
    assert gmacs(on_meta("s3d"), 3, *FULL) == pytest.approx(71.92, abs=0.005)
    assert gmacs(on_meta("s3d"), 3, 16, 224, 224) == pytest.approx(17.98, abs=0.005)


@pytest.mark.parametrize(
    ("width", "size", "expected"),
    [
        (1, (32, 112, 112), "8.07"),
        (1, (16, 112, 112), "4.04"),
        (1, (16, 64, 64), "1.31"),
        (0.25, (16, 112, 112), "0.40"),
        (0.25, (16, 56, 56), "0.104"),
        (0.25, (8, 56, 56), "0.052"),
    ],
)
def test_small_inputs_cost_little(width: float, size: tuple[int, int, int], expected: str) -> None:
    digits = len(expected.partition(".")[2])
    assert f"{gmacs(on_meta(width=width), 3, *size):.{digits}f}" == expected


def test_one_convolution_is_counted_as_by_hand() -> None:
    """2b: 64 x 64 products at each of 8 x 28 x 28 positions of a 16x112x112 clip."""
    assert macs(on_meta(), (3, 16, 112, 112))["conv_2b"] == 64 * 64 * 8 * 28 * 28


@pytest.mark.parametrize("arch", ["s3dg", "s3d"])
def test_features_have_the_shapes_of_the_table(arch: str) -> None:
    assert tap_shapes(on_meta(arch), (3, *FULL)) == SHAPES


def test_odd_sizes_are_halved_upward_as_tensorflow_does() -> None:
    shapes = tap_shapes(on_meta(width=0.25), (3, 17, 57, 45))
    sizes = {name: shapes[name][1:] for name in ("1a", "2b", "3A", "4b", "5b")}
    assert sizes == {
        "1a": (9, 29, 23),
        "2b": (9, 15, 12),
        "3A": (9, 8, 6),
        "4b": (5, 4, 3),
        "5b": (3, 2, 2),
    }


def test_counting_leaves_the_model_as_it_is() -> None:
    torch.manual_seed(0)
    model = build(ModelConfig(width=0.25, n_classes=3)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    macs(model, (3, 8, 32, 32))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
