"""Made-up values under the published names: all of them land, and land in the right place."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import train.models
from flowprep.errors import FlowprepError
from train.models.base import VideoModel, build
from train.models.importers.load import convert, import_weights, recognise

State = dict[str, Tensor]
NAMES = Path(train.models.__file__).parent / "names"
SOURCES = ("torchvision_s3d", "kylemin_s3d", "d3d_tf")
FIRST = {
    "torchvision_s3d": "features.0.0.0.weight",
    "kylemin_s3d": "base.0.conv_s.weight",
    "d3d_tf": "InceptionV1/Conv2d_1a_7x7/weights",
}
NUMBER = "num_batches_tracked"


@cache
def listed(source: str) -> dict[str, tuple[int, ...]]:
    lines = (NAMES / f"{source}.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split(" ") for line in lines if not line.startswith("#")]
    return {name: tuple(json.loads(shape)) for name, shape in pairs}


@cache
def _random(source: str) -> State:
    rng = torch.Generator().manual_seed(3)
    shapes = listed(source)
    return {n: torch.rand(s, generator=rng) * 0.1 + 0.01 for n, s in shapes.items()}


def made_up(source: str) -> State:
    counts = {n: torch.tensor(7) for n in listed(source) if n.endswith(NUMBER)}
    return {**_random(source), **counts}


def imported(tensors: State) -> VideoModel:
    config, state = convert(recognise(tensors), tensors)
    with torch.device("meta"):
        model = build(config)
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()


def arrays_of(source: str) -> dict[str, np.ndarray]:
    return {name: value.double().numpy() for name, value in made_up(source).items()}


class Slim:
    """slim's layers in NumPy on [T, H, W, C], weights as the checkpoint has them (DHWIO)."""

    def __init__(self) -> None:
        self.arrays = arrays_of("d3d_tf")

    def conv(self, x_THWC: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """SAME, stride 1: one matrix product per kernel position, over the shifted input."""
        d, h, w, _, c_out = weights.shape
        padded = np.pad(x_THWC, [*(((k - 1) // 2, k // 2) for k in (d, h, w)), (0, 0)])
        out = np.zeros((*x_THWC.shape[:3], c_out))
        t_, h_, w_ = x_THWC.shape[:3]
        for i, j, k in np.ndindex(d, h, w):
            shifted = padded[i : i + t_, j : j + h_, k : k + w_]
            out += np.einsum("thwi,io->thwo", shifted, weights[i, j, k])
        return out

    def unit(self, x: np.ndarray, scope: str) -> np.ndarray:
        beta, mean, var = (
            self.arrays[f"{scope}/BatchNorm/{n}"]
            for n in ("beta", "moving_mean", "moving_variance")
        )
        x = self.conv(x, self.arrays[f"{scope}/weights"])
        return np.maximum((x - mean) / np.sqrt(var + 0.001) + beta, 0)

    def temporal(self, x: np.ndarray, scope: str) -> np.ndarray:
        weights, biases = (self.arrays[f"{scope}/temporal/{n}"] for n in ("weights", "biases"))
        return np.maximum(self.conv(x, weights) + biases, 0)

    def gate(self, x: np.ndarray, scope: str) -> np.ndarray:
        matrix = self.arrays[f"{scope}/self_gating/transformer_W/weights"][0, 0, 0]
        return x / (1 + np.exp(-(x.mean((0, 1, 2)) @ matrix)))

    def separable(self, x: np.ndarray, scope: str) -> np.ndarray:
        return self.gate(self.temporal(self.unit(x, scope), scope), scope)

    def pooled(self, x: np.ndarray) -> np.ndarray:
        """3x3x3, stride 1: the largest of 27 shifts."""
        padded = np.pad(x, [(1, 1), (1, 1), (1, 1), (0, 0)], constant_values=-np.inf)
        t, h, w = x.shape[:3]
        shifts = [padded[i : i + t, j : j + h, k : k + w] for i, j, k in np.ndindex(3, 3, 3)]
        return np.max(shifts, axis=0)

    def mixed(self, x: np.ndarray, scope: str) -> np.ndarray:
        b = [f"{scope}/Branch_{i}" for i in range(4)]
        point, reduce, sep, late = (
            "Conv2d_0a_1x1",
            "Conv2d_0a_1x1",
            "Conv2d_0b_3x3",
            "Conv2d_0b_1x1",
        )
        branches = [
            self.gate(self.unit(x, f"{b[0]}/{point}"), f"{b[0]}/{point}"),
            self.separable(self.unit(x, f"{b[1]}/{reduce}"), f"{b[1]}/{sep}"),
            self.separable(self.unit(x, f"{b[2]}/{reduce}"), f"{b[2]}/{sep}"),
            self.gate(self.unit(self.pooled(x), f"{b[3]}/{late}"), f"{b[3]}/{late}"),
        ]
        return np.concatenate(branches, axis=-1)


@pytest.fixture(scope="module")
def d3d() -> VideoModel:
    return imported(made_up("d3d_tf"))


@torch.no_grad()
def agree(
    model: VideoModel, layer: str, shape_CTHW: tuple[int, ...], expected: Callable[..., np.ndarray]
) -> None:
    x_CTHW = np.random.default_rng(5).random(shape_CTHW)
    found = model.get_submodule(f"layers.{layer}")(torch.from_numpy(x_CTHW).float()[None])[0]
    theirs = expected(x_CTHW.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2)
    np.testing.assert_allclose(found.numpy(), theirs, rtol=1e-4)


def test_tensorflow_lists_305_tensors() -> None:
    assert len(listed("d3d_tf")) == 305
    sizes = {n: int(np.prod(s)) for n, s in listed("d3d_tf").items()}
    assert sum(v for n, v in sizes.items() if "/moving_" not in n) == 9_518_848


@pytest.mark.parametrize("source", ["torchvision_s3d", "kylemin_s3d"])
def test_pytorch_lists_hold_torchvisions_parameters(source: str) -> None:
    buffers = ("running_mean", "running_var", NUMBER)
    sizes = [int(np.prod(s)) for n, s in listed(source).items() if not n.endswith(buffers)]
    assert sum(sizes) == 8_320_048


@pytest.mark.parametrize("source", SOURCES)
def test_every_value_is_used_once(source: str) -> None:
    tensors = made_up(source)
    state = imported(tensors).state_dict()
    ours = {n: v for n, v in state.items() if not n.endswith(NUMBER)}
    if source == "d3d_tf":
        ours = {n: v for n, v in ours.items() if not n.endswith("norm.weight")}
    theirs = [v for n, v in tensors.items() if not n.endswith(NUMBER)]
    assert sorted(v.double().sum().item() for v in ours.values()) == pytest.approx(
        sorted(v.double().sum().item() for v in theirs)
    )


def test_tensorflows_gated_block_computes_what_slim_does(d3d: VideoModel) -> None:
    slim = Slim()
    agree(d3d, "conv_2c", (64, 4, 5, 3), lambda x: slim.separable(x, "InceptionV1/Conv2d_2c_3x3"))


@pytest.mark.parametrize(("name", "channels"), [("3b", 192), ("4e", 512), ("5c", 832)])
def test_tensorflows_mixed_block_computes_what_slim_does(
    d3d: VideoModel, name: str, channels: int
) -> None:
    slim = Slim()
    agree(
        d3d,
        f"mixed_{name}",
        (channels, 2, 3, 3),
        lambda x: slim.mixed(x, f"InceptionV1/Mixed_{name}"),
    )


def test_tensorflows_classifier_lands_transposed(d3d: VideoModel) -> None:
    arrays = arrays_of("d3d_tf")
    weight = d3d.state_dict()["classifier.conv.weight"].flatten(1)
    expected = arrays["InceptionV1/Logits/Conv2d_0c_1x1/weights"][0, 0, 0].T
    np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-6)


def test_tensorflows_batch_norm_has_weight_one(d3d: VideoModel) -> None:
    weights = [v for n, v in d3d.state_dict().items() if n.endswith("norm.weight")]
    assert len(weights) == 57
    assert all(bool((w == 1).all()) for w in weights)


def test_kylemin_and_torchvision_are_one_network_under_two_names() -> None:
    """Both list their modules in the order of computation, so the n-th names belong together."""
    theirs, kylemin = made_up("torchvision_s3d"), listed("kylemin_s3d")
    assert list(kylemin.values()) == list(listed("torchvision_s3d").values())
    renamed = dict(zip(kylemin, theirs.values(), strict=True))
    first, second = imported(theirs).state_dict(), imported(renamed).state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_learned_batch_norm_weights_are_kept() -> None:
    tensors = made_up("kylemin_s3d")
    state = imported(tensors).state_dict()
    assert torch.equal(state["layers.conv_2b.norm.weight"], tensors["base.2.bn.weight"])
    assert torch.equal(
        state["layers.mixed_5c.branch2.sep.temporal.norm.weight"],
        tensors["base.15.branch2.1.bn_t.weight"],
    )


def test_classes_and_channels_come_from_the_shapes() -> None:
    tensors = made_up("d3d_tf")
    tensors[FIRST["d3d_tf"]] = torch.zeros(3, 7, 7, 2, 64)
    tensors["InceptionV1/Logits/Conv2d_0c_1x1/weights"] = torch.zeros(1, 1, 1, 1024, 600)
    tensors["InceptionV1/Logits/Conv2d_0c_1x1/biases"] = torch.zeros(600)
    config, _ = convert(recognise(tensors), tensors)
    assert (config.arch, config.in_channels, config.n_classes) == ("s3dg", 2, 600)


def test_what_only_tensorflows_training_needs_is_left_out() -> None:
    tensors = made_up("d3d_tf")
    expected = imported(tensors).state_dict()
    slots = {f"{n}/Momentum": v for n, v in tensors.items() if n.endswith(("weights", "beta"))}
    wide = {n: v[None, None, None, None] if "/BatchNorm/" in n else v for n, v in tensors.items()}
    state = imported({**wide, **slots, "global_step": torch.tensor(5)}).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in state.items())


def test_files_older_than_num_batches_tracked_are_taken() -> None:
    tensors = {n: v for n, v in made_up("kylemin_s3d").items() if not n.endswith(NUMBER)}
    assert imported(tensors).state_dict()[f"layers.conv_2b.norm.{NUMBER}"] == 0


@pytest.mark.parametrize("source", SOURCES)
def test_a_missing_tensor_is_named(source: str) -> None:
    tensors = made_up(source)
    gone = next(n for n in list(tensors)[60:] if not n.endswith(NUMBER))
    del tensors[gone]
    with pytest.raises(FlowprepError, match=f"{gone} is missing"):
        convert(recognise(tensors), tensors)


@pytest.mark.parametrize("source", SOURCES)
def test_a_tensor_too_many_is_named(source: str) -> None:
    tensors = {**made_up(source), "text_module.fc1.weight": torch.zeros(2)}
    with pytest.raises(FlowprepError, match=r"1 tensors that .*text_module\.fc1\.weight"):
        convert(recognise(tensors), tensors)


@pytest.mark.parametrize("source", SOURCES)
def test_a_tensor_of_another_shape_is_named(source: str) -> None:
    tensors = made_up(source)
    wrong = [n for n, v in tensors.items() if v.ndim == 5][20]
    tensors[wrong] = tensors[wrong][..., :-1] if source == "d3d_tf" else tensors[wrong][:-1]
    with pytest.raises(FlowprepError, match=f"{wrong} has the shape"):
        convert(recognise(tensors), tensors)


def test_a_flat_first_convolution_is_refused() -> None:
    tensors = {**made_up("torchvision_s3d"), FIRST["torchvision_s3d"]: torch.zeros(64, 3)}
    with pytest.raises(FlowprepError, match=r"features\.0\.0\.0\.weight has the shape \[64, 3\]"):
        convert(recognise(tensors), tensors)


def test_an_unknown_source_is_told_which_are_known(tmp_path: Path) -> None:
    path = tmp_path / "howto100m.pth"
    torch.save({"conv1.weight": torch.zeros(1), "mixed_3b.x": torch.zeros(1)}, path)
    with pytest.raises(
        FlowprepError, match=r"howto100m.*conv1\.weight, mixed_3b\.x\n.*torchvision"
    ):
        import_weights(path)


def saved(source: str, folder: Path, kind: str) -> Path:
    path = folder / f"weights.{kind}"
    if kind == "npz":
        np.savez(path, **{n: v.numpy() for n, v in made_up(source).items()})
    elif kind == "safetensors":
        save_file(made_up(source), path)
    else:
        torch.save({f"module.{n}": v for n, v in made_up(source).items()}, path)
    return path


@pytest.mark.parametrize(
    ("source", "kind"),
    [("d3d_tf", "npz"), ("kylemin_s3d", "pt"), ("kylemin_s3d", "safetensors")],
)
def test_files_are_read(source: str, kind: str, tmp_path: Path) -> None:
    config, state = import_weights(saved(source, tmp_path, kind))
    expected = imported(made_up(source)).state_dict()
    assert config.n_classes == 400
    assert all(torch.equal(value, expected[name]) for name, value in state.items())


@torch.no_grad()
def test_torchvisions_weights_are_fitted_to_our_range(tmp_path: Path) -> None:
    """The stem alone, away from the padding: theirs on normalised RGB, ours on -1..1."""
    theirs = imported(made_up("torchvision_s3d"))
    config, state = import_weights(saved("torchvision_s3d", tmp_path, "pth"))
    ours = build(config).eval()
    ours.load_state_dict(state)
    rgb01 = torch.rand(1, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    mean = torch.tensor([0.43216, 0.394666, 0.37645]).view(3, 1, 1, 1)
    std = torch.tensor([0.22803, 0.22145, 0.216989]).view(3, 1, 1, 1)
    expected = theirs.get_submodule("layers.conv_1a.spatial")((rgb01 - mean) / std)
    found = ours.get_submodule("layers.conv_1a.spatial")(rgb01 * 2 - 1)
    inside = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(found[inside], expected[inside], rtol=1e-4, atol=1e-3)
    assert not torch.allclose(found, expected, rtol=1e-4, atol=1e-3)


class Harmful:
    def __reduce__(self) -> tuple[type[Path], tuple[str]]:
        return Path, ("executed",)


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors", "a.pt", "a.pth"])
@pytest.mark.parametrize("data", [b"", b"not weights at all", pickle.dumps(Harmful(), 2)])
def test_other_bytes_are_refused(name: str, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(FlowprepError, match="damaged, or holds more than weights"):
        import_weights(path)


def test_objects_inside_good_containers_are_refused(tmp_path: Path) -> None:
    torch.save({"a": Harmful()}, tmp_path / "a.pt")
    np.savez(tmp_path / "a.npz", a=np.array([Harmful()], dtype=object))
    for name in ("a.pt", "a.npz"):
        with pytest.raises(FlowprepError, match="holds more than weights"):
            import_weights(tmp_path / name)


@pytest.mark.parametrize(
    ("held", "told"), [([1], "holds a list"), ({"a": 1}, "'a' is of type int")]
)
def test_a_file_of_something_else_is_refused(held: object, told: str, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "a.pt")
    with pytest.raises(FlowprepError, match=told):
        import_weights(tmp_path / "a.pt")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FlowprepError, match="cannot be read"):
        import_weights(tmp_path / "a.pt")
    with pytest.raises(FlowprepError, match=r"known endings: \.npz"):
        import_weights(tmp_path / "model.ckpt")
