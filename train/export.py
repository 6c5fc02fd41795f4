"""Write the network of a run for other runtimes, after comparing it with PyTorch.

    python -m train.export --run runs/d3d --to onnx            # runs/d3d/best.onnx
    python -m train.export --run runs/d3d --to onnx --lower    # the same without a 3-D operation

Input `clip`, float32 [B, 3, T, S, S]: RGB in -1..1, pixel * 2 / 255 - 1. For a network of flow
[B, 2, T, S, S]: dx to the right and dy downward in units of 20 px, clipped to -1..1. B is free; T
and S are those of the run's windows, which padding and head are made for. Output `logits`, float32
[B, K]; the class names are in the file's metadata.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from timeit import repeat
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from flowprep.errors import FlowprepError
from train.checkpoint import Meta, load_net, weights_of, write_whole
from train.common import run_main, tell
from train.config import parse
from train.models.lowered import lower

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18
"""The one that PyTorch's operators are written in: any other goes through a version converter."""

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
MAX_DIFFERENCE = 1e-4  # of logits, float32
MAX_BYTES = (1 << 31) - (1 << 20)  # protobuf's limit for one file, less room for the graph
WITH_KERNEL = frozenset({"Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"})
REPEATS = 5
INPUTS = {
    "rgb": "float32 [batch, 3, T, S, S]: red, green, blue as pixel * 2 / 255 - 1",
    "flow": "float32 [batch, 2, T, S, S]: dx to the right, dy downward, pixels / 20 within -1..1",
}


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write the network of a run for other runtimes."""

    run: str = "runs/d3d"  # run folder or weights
    to: Literal["onnx"] = "onnx"  # the format
    lower: bool = False  # 2-D convolutions and pools only, for runtimes without 3-D ones
    out: str = ""  # file; "" = best.onnx (--lower: best.lowered.onnx) beside the weights


def export(config: ExportConfig) -> Path:
    """Write the file, and tell what it is and how fast.

    Nothing is written unless onnxruntime gives PyTorch's logits. Raises FlowprepError where it does
    not, a package is missing, or the network does not fit into one file; OSError.
    """
    _require_packages()
    suffix = ".lowered.onnx" if config.lower else ".onnx"
    path = Path(config.out) if config.out else weights_of(config.run).with_suffix(suffix)
    net, meta = load_net(config.run)
    model = to_onnx(lower(net) if config.lower else net, meta)
    if config.lower:
        check_lowered(model)
    data = model.SerializeToString()
    difference, largest = check(data, net, meta)
    write_whole(path, data)
    _tell_file(path, model, meta)
    tell(
        f"onnxruntime {version('onnxruntime')} against PyTorch {torch.__version__}: logits up to "
        f"{largest:.3g} differ by at most {difference:.1e}; {MAX_DIFFERENCE:.0e} is allowed"
    )
    _tell_latency(data, net, meta)
    return path


def _require_packages() -> None:
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise FlowprepError(f"--to onnx needs {', '.join(missing)}", "pip install '.[onnx]'")


def to_onnx(net: nn.Module, meta: Meta) -> ModelProto:
    """The network as an ONNX model with its weights and, as properties, its classes and Meta.

    Raises FlowprepError where the weights are beyond what one file can hold.
    """
    import onnx

    n_bytes = sum(t.numel() * t.element_size() for t in net.state_dict().values())
    if n_bytes > MAX_BYTES:
        raise FlowprepError(
            f"the weights have {n_bytes / 1e9:.2f} GB, one ONNX file holds {MAX_BYTES / 1e9:.2f}",
            "train a narrower network (--width)",
        )
    with _known_noise():
        program: Any = torch.onnx.export(
            net,
            (example(meta, 2),),
            dynamo=True,
            opset_version=OPSET,
            input_names=["clip"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    model: ModelProto = program.model_proto
    about = {"classes": json.dumps(meta.classes), "flowprep": json.dumps(asdict(meta))}
    onnx.helper.set_model_props(model, {**about, "input": INPUTS[meta.modality]})
    return model


@contextmanager
def _known_noise() -> Iterator[None]:
    """Leave out what torch 2.13 says of itself: its own use of what it deprecates, and that there
    is no torchvision whose operators it could translate (r2plus1d uses none of them)."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
        logger.addFilter(_is_news)
        try:
            yield
        finally:
            logger.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("torchvision is not installed")


def example(meta: Meta, batch: int) -> Tensor:
    """Random input float32 [batch, C, T, S, S] in -1..1, the same every time."""
    side, seeded = meta.window.crop, torch.Generator().manual_seed(0)
    shape = (batch, meta.model.in_channels, meta.window.frames, side, side)
    return torch.rand(shape, generator=seeded) * 2 - 1


def check_lowered(model: ModelProto) -> None:
    """Raise FlowprepError unless every convolution and pool of the graph is 1-D or 2-D."""
    if found := three_d(model):
        raise FlowprepError(
            f"the lowered graph still has 3-D operations: {', '.join(found[:3])}",
            "export without --lower, and report it",
        )


def three_d(model: ModelProto) -> list[str]:
    """Convolutions and pools with a kernel over three axes, as "Conv node_name"."""
    dims = {tensor.name: len(tensor.dims) - 2 for tensor in model.graph.initializer}
    return [
        f"{node.op_type} {node.name}"
        for node in model.graph.node
        if node.op_type in WITH_KERNEL and _kernel_dims(node, dims) >= 3
    ]


def _kernel_dims(node: Any, dims: dict[str, int]) -> int:
    """Axes of a node's kernel; a convolution may leave it to its weights."""
    shapes = [len(a.ints) for a in node.attribute if a.name == "kernel_shape"]
    return shapes[0] if shapes else dims[node.input[1]]


def check(data: bytes, net: nn.Module, meta: Meta) -> tuple[float, float]:
    """Largest difference of onnxruntime's logits from PyTorch's, and largest logit.

    Over random input in batches of 1 and 2. Raises FlowprepError above MAX_DIFFERENCE, and where
    the file is not valid ONNX.
    """
    import onnx

    try:
        onnx.checker.check_model(data, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise FlowprepError(f"not a valid ONNX file: {error}", "report it") from error
    run = _session(data, 0)
    with torch.no_grad():
        pairs = [(run(x), net(x)) for x in (example(meta, 1), example(meta, 2))]
    difference = max(float((got - want).abs().max()) for got, want in pairs)
    largest = max(float(want.abs().max()) for _, want in pairs)
    if not difference <= MAX_DIFFERENCE:  # NaN too
        raise FlowprepError(
            f"onnxruntime's logits differ by {difference:.1e} from PyTorch's, up to {largest:.3g}; "
            f"{MAX_DIFFERENCE:.0e} is allowed: nothing was written. PyTorch's own float32 logits "
            f"differ by {_rounding(net, example(meta, 2)):.1e} from its float64 ones",
            "where both are alike, the network magnifies rounding: batch norm has channels of next "
            "to no variance, which longer training mends; else report it",
        )
    return difference, largest


def _rounding(net: nn.Module, clip: Tensor) -> float:
    with torch.no_grad():
        return float((deepcopy(net).double()(clip.double()) - net(clip)).abs().max())


def _session(data: bytes, threads: int) -> Callable[[Tensor], Tensor]:
    """The network in onnxruntime on the CPU. `threads`: 0 = all cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda clip: torch.from_numpy(session.run(["logits"], {"clip": clip.numpy()})[0])


def _tell_file(path: Path, model: ModelProto, meta: Meta) -> None:
    operations = Counter(node.op_type for node in model.graph.node)
    shape = ", ".join(str(n) for n in example(meta, 1).shape[1:])
    tell(f"{path}: {path.stat().st_size / 1e6:.1f} MB, opset {OPSET}, {len(meta.classes)} classes")
    tell(f"input clip [batch, {shape}], {INPUTS[meta.modality]}")
    tell("operations: " + ", ".join(f"{name} {n}" for name, n in operations.most_common()))
    tell(f"with a kernel over three axes: {len(three_d(model)) or 'none'}")


def _tell_latency(data: bytes, net: nn.Module, meta: Meta) -> None:
    clip, all_threads = example(meta, 1), torch.get_num_threads()
    for threads in dict.fromkeys((1, all_threads)):
        onnx_s = _median_s(partial(_session(data, threads), clip))
        torch.set_num_threads(threads)
        with torch.no_grad():
            torch_s = _median_s(partial(net, clip))
        tell(f"one clip, {threads} thread(s): onnxruntime {onnx_s:.3f} s, PyTorch {torch_s:.3f} s")
    torch.set_num_threads(all_threads)


def _median_s(work: Callable[[], object]) -> float:
    """Median of REPEATS, after one that does not count."""
    return median(repeat(work, number=1, repeat=1 + REPEATS)[1:])


def main() -> None:
    export(parse(ExportConfig, "python -m train.export"))


if __name__ == "__main__":
    run_main(main)
