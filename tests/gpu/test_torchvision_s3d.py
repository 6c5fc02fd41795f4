"""Our networks against torchvision's own: the same weights give the same logits.

torchvision comes with its CUDA build of torch, on the machine that has a GPU; everything here is
computed on the CPU, in float32.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    if all(importlib.util.find_spec(name) for name in ("torch", "torchvision")):
        return
    if os.environ.get("FLOWPREP_FAIL_WITHOUT_CUDA") == "1":
        pytest.fail("torchvision is not installed")
    pytest.skip("torchvision is not installed here; it comes with a CUDA build of torch")


@pytest.fixture(scope="module")
def theirs() -> Any:
    """torchvision's s3d from scratch, its BatchNorms as if trained."""
    import torch
    from torchvision.models.video import s3d

    torch.manual_seed(0)
    model = s3d(weights=None, num_classes=400).eval()
    for name, value in model.state_dict().items():
        if name.endswith(("running_var", ".1.weight")) and value.ndim == 1:
            value.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", ".1.bias")):
            value.normal_(0, 0.2)
    return model


def ours_from(tensors: Any) -> Any:
    from train.models.base import build
    from train.models.importers.load import convert, recognise

    config, state = convert(recognise(tensors), tensors)
    model = build(config).eval()
    model.load_state_dict(state, strict=True)
    return model


def test_the_committed_names_are_torchvisions(theirs: Any) -> None:
    import train.models

    path = Path(train.models.__file__).parent / "names" / "torchvision_s3d.txt"
    lines = [n for n in path.read_text(encoding="utf-8").splitlines() if not n.startswith("#")]
    found = [
        f"{n} {json.dumps(list(v.shape), separators=(',', ':'))}"
        for n, v in theirs.state_dict().items()
    ]
    assert lines == found


@pytest.mark.parametrize("shape", [(2, 3, 16, 224, 224), (1, 3, 17, 231, 225)])
def test_the_same_weights_give_the_same_logits(theirs: Any, shape: tuple[int, ...]) -> None:
    import torch

    x_BCTHW = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = theirs(x_BCTHW), ours_from(theirs.state_dict())(x_BCTHW)
    assert expected.std() > 0.01
    assert (found - expected).abs().max() < 1e-4


def test_imported_weights_take_our_range(theirs: Any, tmp_path: Path) -> None:
    """torchvision has its own mean and scale of RGB; imported, -1..1 differs at borders alone."""
    import torch
    from torchvision.transforms._presets import VideoClassification

    from train.models.base import build
    from train.models.importers.load import import_weights

    torch.save(theirs.state_dict(), tmp_path / "s3d.pth")
    config, state = import_weights(tmp_path / "s3d.pth")
    ours = build(config).eval()
    ours.load_state_dict(state)
    clip_TCHW = torch.randint(0, 256, (16, 3, 224, 224), dtype=torch.uint8)
    preset = VideoClassification(crop_size=(224, 224), resize_size=(224, 224))
    with torch.no_grad():
        expected = theirs.features[0](preset(clip_TCHW)[None])
        found = ours.layers.conv_1a((clip_TCHW.float() * 2 / 255 - 1).movedim(1, 0)[None])
    inside = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(found[inside], expected[inside], rtol=1e-4, atol=1e-4)


def test_torchvisions_layers_are_named_as_ours(theirs: Any) -> None:
    """The features after blocks 3b and 5c, theirs by index, ours by name."""
    import torch

    from train.models.base import Tapped

    x_BCTHW = torch.randn((1, 3, 16, 224, 224), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        _, found = Tapped(ours_from(theirs.state_dict()), ["3b", "5c"])(x_BCTHW)
        for name, index in (("3b", 6), ("5c", 16)):
            torch.testing.assert_close(found[name], theirs.features[:index](x_BCTHW))


def test_r2plus1d_runs_on_flow() -> None:
    import torch

    from train.models.base import ModelConfig, Tapped, build, head_names

    model = build(ModelConfig(arch="r2plus1d", in_channels=2, n_classes=7, bn_momentum=0.1)).eval()
    with torch.no_grad():
        logits, features = Tapped(model, list(model.taps))(torch.randn(2, 2, 8, 56, 56))
    assert logits.shape == (2, 7)
    assert {n: tuple(f.shape[1:]) for n, f in features.items()} == {
        "stem": (64, 8, 28, 28),
        "layer1": (64, 8, 28, 28),
        "layer2": (128, 4, 14, 14),
        "layer3": (256, 2, 7, 7),
        "layer4": (512, 1, 4, 4),
        "pool": (512,),
    }
    assert head_names(model) == {"classifier.conv.weight", "classifier.conv.bias"}


def test_r2plus1d_has_torchvisions_parameters() -> None:
    from torchvision.models.video import R2Plus1D_18_Weights

    from train.models.base import ModelConfig, build
    from train.models.count import parameters

    expected = R2Plus1D_18_Weights.KINETICS400_V1.meta["num_params"]
    assert parameters(build(ModelConfig(arch="r2plus1d")))["total"] == (expected, expected)
