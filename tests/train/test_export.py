"""An exported file is the network of its run, in onnxruntime, or it is not written.

Exporting takes the longer the more layers a network has, so most tests use a short one made of the
same pieces; S3D-G and S3D themselves are among the slow ones.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flowprep.errors import FlowprepError
from train.checkpoint import Meta, load_net, save_weights
from train.data.windows import WindowConfig
from train.export import ExportConfig, check, check_lowered, export, three_d, to_onnx
from train.models.base import MODELS, Classifier, ModelConfig, ModelEntry, VideoModel, build
from train.models.layers import SLIM, HeadPool, Maker, chain, initialize
from train.models.lowered import lower

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

CLASSES = ["left", "right", "zoom in", "ünï"]


class Short(ModelEntry):
    """A stem, pools, one gated Inception block and the head of S3D-G."""

    def load(self) -> Any:
        return build_short


def build_short(config: ModelConfig) -> VideoModel:
    maker = Maker(SLIM, config.bn_momentum)
    layers = chain(
        {
            "conv_1a": maker.conv(config.in_channels, 16, (3, 7, 7), (2, 2, 2)),
            "pool_2a": maker.pool((1, 3, 3), (1, 2, 2)),
            "mixed": maker.mixed(16, (16,) * 6),
            "pool_4a": maker.pool((3, 3, 3), (2, 2, 2)),
            "pool": HeadPool(),
        }
    )
    initialize(layers)
    return VideoModel(layers, {}, Classifier(64, config))


@pytest.fixture(scope="module", autouse=True)
def _short() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "short", Short("", ""))
        yield


def save_run(
    folder: Path, arch: str = "short", width: float = 1.0, channels: int = 3, size: int = 24
) -> Path:
    """A run whose logits are far from nothing, of windows of 8 frames (16 from 112 pixels up)."""
    torch.manual_seed(1)
    config = ModelConfig(arch=arch, width=width, n_classes=len(CLASSES), in_channels=channels)
    net = build(config)
    frames = 16 if size >= 112 else 8
    for module in net.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.normal_(module.weight, std=(2 / module.weight[0].numel()) ** 0.5)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.01)
    head_std = 1.0 if arch == "s3dg" else 0.1  # ten gates, each of which halves
    nn.init.normal_(net.get_parameter("classifier.conv.weight"), std=head_std)
    meta = Meta(
        model=config,
        modality="rgb" if channels == 3 else "flow",
        classes=CLASSES,
        window=WindowConfig(frames=frames, crop=size),
        extraction={},
        fingerprint="0",
        config={},
        step=7,
        epoch=1.0,
        val_top1=0.5,
        commit="",
        versions={},
    )
    save_weights(folder / "best.safetensors", net.eval(), meta)
    return folder


Ran = Callable[[Tensor], Tensor]


def in_onnxruntime(path: Path) -> Ran:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"clip": x.numpy()})[0])


def clips(batch: int, channels: int = 3, frames: int = 8, size: int = 24) -> Tensor:
    shape = (batch, channels, frames, size, size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(batch)) * 2 - 1


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def plain(run: Path) -> Path:
    return export(ExportConfig(run=str(run)))


@pytest.fixture(scope="module")
def lowered(run: Path) -> Path:
    return export(ExportConfig(run=str(run), lower=True))


@pytest.fixture(params=["plain", "lowered"])
def exported(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_any_batch_gives_pytorchs_logits(run: Path, exported: Path, batch: int) -> None:
    x = clips(batch)
    with torch.no_grad():
        want = load_net(str(run))[0](x)
    assert want.abs().max() > 0.1
    assert want.std(1).min() > 0.05
    got = in_onnxruntime(exported)(x)
    assert got.dtype == torch.float32
    assert (got - want).abs().max() < 1e-5


def test_files_lie_beside_the_weights_each_alone(run: Path, plain: Path, lowered: Path) -> None:
    assert (plain, lowered) == (run / "best.onnx", run / "best.lowered.onnx")
    names = {path.name for path in run.iterdir()}
    assert names == {"best.safetensors", "best.onnx", "best.lowered.onnx"}
    for path in (plain, lowered):
        tensors = onnx.load(path, load_external_data=False).graph.initializer
        assert not any(onnx.external_data_helper.uses_external_data(t) for t in tensors)


def kernels_3d(path: Path) -> list[str]:
    """Types of the nodes with a kernel of three axes, told by their inputs' rank."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True)
    known = [*model.graph.value_info, *model.graph.input]
    rank = {value.name: len(value.type.tensor_type.shape.dim) for value in known}
    kernels = [n for n in model.graph.node if n.op_type == "Conv" or n.op_type.endswith("Pool")]
    return sorted({n.op_type for n in kernels if rank[n.input[0]] == 5})


def test_lowered_has_nothing_3d_where_plain_has(plain: Path, lowered: Path) -> None:
    assert kernels_3d(plain) == ["AveragePool", "Conv", "MaxPool"]
    assert kernels_3d(lowered) == []
    assert {name.split()[0] for name in three_d(onnx.load(plain))} == set(kernels_3d(plain))
    assert three_d(onnx.load(lowered)) == []


def test_weights_of_lowered_convolutions_are_constants(lowered: Path) -> None:
    graph = onnx.load(lowered).graph
    constants = {tensor.name for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 3 + 8 + 4 + 1  # the stem's time steps, the block, gates, the head
    assert all(node.input[1] in constants for node in convolutions)


def test_the_file_says_what_it_is(run: Path, exported: Path) -> None:
    model = onnx.load(exported)
    (clip,) = model.graph.input
    (logits,) = model.graph.output
    assert [d.dim_param or d.dim_value for d in clip.type.tensor_type.shape.dim] == [
        "batch",
        *(3, 8, 24, 24),
    ]
    assert [d.dim_param or d.dim_value for d in logits.type.tensor_type.shape.dim] == ["batch", 4]
    assert (clip.name, logits.name) == ("clip", "logits")
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
    told = {p.key: p.value for p in model.metadata_props}
    assert json.loads(told["classes"]) == CLASSES
    assert json.loads(told["flowprep"]) == asdict(load_net(str(run))[1])
    assert "-1" not in told["input"]
    assert "pixel * 2 / 255 - 1" in told["input"]


def test_a_network_of_flow_and_what_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save_run(tmp_path / "run", channels=2)
    path = tmp_path / "new" / "teacher.onnx"
    assert export(ExportConfig(run=str(run), lower=True, out=str(path))) == path
    told = capsys.readouterr()
    assert f"{path}: {path.stat().st_size / 1e6:.1f} MB, opset 18, 4 classes" in told.out
    assert "input clip [batch, 2, 8, 24, 24]" in told.out
    assert "with a kernel over three axes: none" in told.out
    assert "1e-04 is allowed" in told.out
    assert "one clip, 1 thread(s): onnxruntime" in told.out
    assert told.err == ""
    x = clips(2, channels=2)
    with torch.no_grad():
        want = load_net(str(run))[0](x)
    assert (in_onnxruntime(path)(x) - want).abs().max() < 1e-5
    assert "pixels / 20" in {p.key: p.value for p in onnx.load(path).metadata_props}["input"]


def tampered(path: Path, factor: float) -> Any:
    """The model with the classifier's bias scaled: a valid file of another network."""
    model = onnx.load(path)
    (bias,) = (t for t in model.graph.initializer if t.name == "classifier.conv.bias")
    values = onnx.numpy_helper.to_array(bias) * factor + factor - 1
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    return model


@pytest.mark.parametrize("factor", [1.001, float("nan")])
def test_a_file_that_computes_something_else_is_not_written(
    run: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    model = tampered(plain, factor)
    monkeypatch.setattr("train.export.to_onnx", lambda *_: model)
    path = tmp_path / "student.onnx"
    path.write_bytes(b"an older one")
    with pytest.raises(FlowprepError, match=r"differ by .* nothing was written.*own float32"):
        export(ExportConfig(run=str(run), out=str(path)))
    assert path.read_bytes() == b"an older one"
    assert [p.name for p in tmp_path.iterdir()] == ["student.onnx"]


def test_a_file_that_is_no_onnx_is_refused(run: Path, plain: Path) -> None:
    model = onnx.load(plain)
    model.graph.node[0].op_type = "Convolve"
    with pytest.raises(FlowprepError, match="not a valid ONNX file"):
        check(model.SerializeToString(), *load_net(str(run)))


def test_a_3d_operation_in_a_lowered_graph_is_refused(run: Path, plain: Path) -> None:
    model = onnx.load(plain)
    with pytest.raises(FlowprepError, match="still has 3-D operations: Conv"):
        check_lowered(model)
    for node in model.graph.node:  # the attribute may be left out of a convolution
        kept = [a for a in node.attribute if a.name != "kernel_shape" or node.op_type != "Conv"]
        del node.attribute[:]
        node.attribute.extend(kept)
    assert three_d(model) == three_d(onnx.load(plain))


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(FlowprepError) as caught:
        export(ExportConfig(run=str(run)))
    assert caught.value.message == f"--to onnx needs {package}"
    assert caught.value.hint == "pip install '.[onnx]'"


def test_weights_beyond_one_file_are_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.export.MAX_BYTES", 1000)
    with pytest.raises(FlowprepError, match="one ONNX file holds"):
        to_onnx(*load_net(str(run)))


def test_no_run_no_file(tmp_path: Path) -> None:
    with pytest.raises(FlowprepError, match="no weights at"):
        export(ExportConfig(run=str(tmp_path / "none")))


def test_lowering_is_what_is_exported(run: Path, lowered: Path) -> None:
    x = clips(2)
    with torch.no_grad():
        want = lower(load_net(str(run))[0])(x)
    assert (in_onnxruntime(lowered)(x) - want).abs().max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("lower_it", [False, True])
@pytest.mark.parametrize(("arch", "width", "size"), [("s3dg", 1.0, 112), ("s3d", 0.25, 112)])
def test_whole_networks(tmp_path: Path, arch: str, width: float, size: int, lower_it: bool) -> None:
    run = save_run(tmp_path, arch, width, size=size)
    path = export(ExportConfig(run=str(run), lower=lower_it))
    net, meta = load_net(str(run))
    x = clips(3, frames=meta.window.frames, size=size)
    with torch.no_grad():
        want = net(x)
    difference = (in_onnxruntime(path)(x) - want).abs().max()
    assert difference < 1e-4
    assert difference < want.std(0).mean() / 20  # the clips' logits lie further apart
    assert bool(kernels_3d(path)) is not lower_it
