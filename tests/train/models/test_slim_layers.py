"""TF-slim's rules: SAME padding, and how a network from scratch starts."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from train.models.base import ModelConfig, VideoModel, build
from train.models.layers import SLIM, TORCHVISION, Maker, SamePad3d, same_padding

Size3 = tuple[int, int, int]


def network(arch: str = "s3dg") -> VideoModel:
    torch.manual_seed(0)
    return build(ModelConfig(arch=arch, width=0.25, n_classes=7)).eval()


def tensorflows_pads(n: int, k: int, s: int) -> tuple[int, int]:
    """As tf.nn's notes on padding put it: by the remainder of n / s."""
    total = max(k - s, 0) if n % s == 0 else max(k - n % s, 0)
    return total // 2, total - total // 2


def naive_conv(x_CTHW: np.ndarray, w_OIDHW: np.ndarray, stride: int) -> np.ndarray:
    """Every output on its own: the window at its place, zeros beyond the edge."""
    sizes, kernel = x_CTHW.shape[1:], w_OIDHW.shape[2:]
    pads = [tensorflows_pads(n, k, stride) for n, k in zip(sizes, kernel, strict=True)]
    padded = np.pad(x_CTHW, [(0, 0), *pads])
    out = np.zeros((len(w_OIDHW), *(-(-n // stride) for n in sizes)))
    for t, h, w in np.ndindex(out.shape[1:]):
        d, e, f = kernel
        at = (t * stride, h * stride, w * stride)
        window = padded[:, at[0] : at[0] + d, at[1] : at[1] + e, at[2] : at[2] + f]
        out[:, t, h, w] = np.einsum("cdef,ocdef->o", window, w_OIDHW)
    return out


def gates_of(model: VideoModel) -> list[nn.Module]:
    return [m for name, m in model.named_modules() if name.endswith(".gate")]


def convolutions(model: VideoModel, temporal: bool) -> list[nn.Conv3d]:
    found = [m for m in model.layers.modules() if isinstance(m, nn.Conv3d)]
    return [m for m in found if (m.kernel_size[0] > m.kernel_size[1]) == temporal]


def test_padding_is_tensorflows() -> None:
    for n, k, s in product(range(1, 20), (1, 2, 3, 7), (1, 2)):
        w, h, t = (
            tensorflows_pads(n, k, s),
            tensorflows_pads(n + 1, 3, s),
            tensorflows_pads(5, 1, s),
        )
        assert same_padding((5, n + 1, n), (1, 3, k), (s, s, s)) == [*w, *h, *t], (n, k, s)


def test_even_inputs_are_padded_more_at_the_end() -> None:
    assert same_padding((64, 224, 224), (3, 7, 7), (2, 2, 2)) == [2, 3, 2, 3, 0, 1]


@pytest.mark.parametrize("size", [(4, 8, 8), (5, 9, 8), (3, 7, 6), (1, 2, 3)])
@torch.no_grad()
def test_the_stem_is_an_explicit_convolution(size: Size3) -> None:
    stem = network().get_submodule("layers.conv_1a")
    rng = np.random.default_rng(0)
    x_CTHW, w = rng.standard_normal((3, *size)), rng.standard_normal((16, 3, 3, 7, 7))
    stem.get_submodule("conv").weight.copy_(torch.from_numpy(w))  # type: ignore[operator]
    found = stem(torch.from_numpy(x_CTHW).float()[None])[0].numpy()
    expected = np.maximum(naive_conv(x_CTHW, w, 2) / np.sqrt(1 + 1e-3), 0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(4, 6, 6), (5, 7, 6), (1, 1, 1), (2, 3, 4)])
@pytest.mark.parametrize(
    ("layer", "kernel", "stride"),
    [
        ("pool_2a", (1, 3, 3), (1, 2, 2)),
        ("pool_3a", (1, 3, 3), (1, 2, 2)),
        ("pool_4a", (3, 3, 3), (2, 2, 2)),
        ("pool_5a", (2, 2, 2), (2, 2, 2)),
        ("mixed_3b.branch3.pool", (3, 3, 3), (1, 1, 1)),
    ],
)
def test_pools_take_the_largest_inside_the_edges(
    layer: str, kernel: Size3, stride: Size3, size: Size3
) -> None:
    """Against pooling with -inf beyond the edge, as TensorFlow has it, after a ReLU."""
    x = torch.relu(torch.randn((2, 3, *size), generator=torch.Generator().manual_seed(2)) - 0.5)
    triples = list(zip(size, kernel, stride, strict=True))
    pads = [p for triple in reversed(triples) for p in tensorflows_pads(*triple)]
    padded = nn.functional.pad(x, pads, value=-torch.inf)
    expected = nn.functional.max_pool3d(padded, kernel, stride)
    assert torch.equal(network().get_submodule(f"layers.{layer}")(x), expected)


def test_every_kernel_is_a_plain_module_with_its_padding_beside_it() -> None:
    pads = [m for m in network().modules() if isinstance(m, SamePad3d)]
    assert len(pads) == 5  # conv_1a and four pools; stride 1 pads alike on both sides
    assert not any(isinstance(m, SamePad3d) for m in network("s3d").modules())


@pytest.mark.parametrize("arch", ["s3dg", "s3d"])
@torch.no_grad()
def test_convolutions_over_time_start_as_identity(arch: str) -> None:
    convs = convolutions(network(arch), temporal=True)
    assert len(convs) == {"s3dg": 19, "s3d": 20}[arch]
    for conv in convs:
        x = torch.randn(1, conv.in_channels, 6, 3, 3)
        assert torch.equal(conv(x), x[:, :, :: conv.stride[0]])
        assert (conv.bias is not None) == (arch == "s3dg")


@torch.no_grad()
def test_a_new_block_is_its_spatial_convolution_gated_by_half() -> None:
    """Neutral BatchNorm statistics, so only the identity and the gate follow the first ReLU."""
    block = network().get_submodule("layers.conv_2c")
    x = torch.rand(2, 16, 4, 6, 6)
    torch.testing.assert_close(block(x), block.get_submodule("spatial")(x) / 2, rtol=0.02, atol=0)


@torch.no_grad()
def test_gates_start_near_one_half() -> None:
    gates = gates_of(network())
    assert len(gates) == 37
    for gate in gates:
        channels = gate.get_submodule("conv").in_channels
        assert isinstance(channels, int)
        ratio = gate(torch.ones(1, channels, 2, 2, 2))
        assert (ratio - 0.5).abs().max() < 0.08


def test_other_convolutions_start_as_truncated_normals() -> None:
    for conv in convolutions(network(), temporal=False):
        assert conv.weight.abs().max() <= 0.02
        assert conv.weight.std().item() == pytest.approx(0.0088, rel=0.1)  # N(0, 0.01) cut at 2 sd


def test_batch_norm_has_a_weight_of_one_that_is_not_trained() -> None:
    norms = [m for m in network().modules() if isinstance(m, nn.BatchNorm3d)]
    assert all(not n.weight.requires_grad and bool((n.weight == 1).all()) for n in norms)
    theirs = [m for m in network("s3d").modules() if isinstance(m, nn.BatchNorm3d)]
    assert all(n.weight.requires_grad for n in theirs)


def test_the_classifier_starts_as_slims_xavier() -> None:
    conv = network().get_submodule("classifier.conv")
    weight, bias = conv.state_dict()["weight"], conv.state_dict()["bias"]
    limit = (6 / (256 + 7)) ** 0.5
    assert limit * 0.95 < weight.abs().max() <= limit
    assert not bias.any()


@pytest.mark.parametrize("style", [SLIM, TORCHVISION])
def test_styles_differ_where_they_say(style: object) -> None:
    maker = Maker(style, 0.05)  # type: ignore[arg-type]
    names = {name for name, _ in maker.gated(maker.separable(4, 4, 3), 4).named_parameters()}
    slim = {"temporal.conv.bias", "gate.conv.weight"}
    torchvision = {"temporal.norm.weight", "temporal.norm.bias"}
    assert names & (slim | torchvision) == (slim if style is SLIM else torchvision)


@torch.no_grad()
def test_gating_multiplies_by_the_sigmoid_of_the_mixed_mean() -> None:
    gate = gates_of(network())[0]
    x: Tensor = torch.rand(2, 48, 3, 4, 5)
    weight = gate.get_submodule("conv").state_dict()["weight"].flatten(1).double().numpy()
    mean = x.double().numpy().mean((2, 3, 4))
    factor = 1 / (1 + np.exp(-mean @ weight.T))
    expected = x.double().numpy() * factor[:, :, None, None, None]
    np.testing.assert_allclose(gate(x).numpy(), expected, rtol=1e-5)
