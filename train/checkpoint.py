"""Weights that leave the lab, and the state from which a run goes on. Loading runs no code."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from flowprep import __version__
from flowprep.errors import FlowprepError
from train.data.batch import FLOW_CLIP_PX
from train.data.windows import WindowConfig
from train.models.base import ModelConfig, VideoModel, build

FORMAT = 1
BEST, LAST, STATE, CONFIG = "best.safetensors", "last.safetensors", "state.pt", "config.toml"
Modality = Literal["rgb", "flow"]


@dataclass(frozen=True, kw_only=True)
class Meta:
    """What must be known to use weights, beside them in the file."""

    model: ModelConfig
    modality: Modality
    classes: list[str]
    window: WindowConfig
    extraction: dict[str, Any]  # settings of the dataset: how its frames and flow were made
    fingerprint: str  # of the dataset
    config: dict[str, Any]  # of the run, resolved
    step: int
    epoch: float
    val_top1: float  # by video, 0..1
    commit: str  # of the code, "" outside a git checkout
    versions: dict[str, str]
    teacher: str = ""  # digest of the weights that taught these
    flow_clip_px: float = field(default=FLOW_CLIP_PX)
    format: int = field(default=FORMAT)


def save_weights(path: Path, net: nn.Module, meta: Meta) -> None:
    """Write a .safetensors file with `meta` inside. Raises OSError; the old file stays then."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    write_whole(path, save(tensors, {"flowprep": json.dumps(asdict(meta))}))


def load_meta(path: Path) -> Meta:
    """The Meta of a weights file. Raises FlowprepError where it has none that is ours."""
    try:
        with safe_open(path, "pt") as file:
            values = json.loads((file.metadata() or {})["flowprep"])
        _check_format(path, values["format"])
        values["model"] = ModelConfig(**values["model"])
        values["window"] = WindowConfig(**values["window"])
        return Meta(**values)
    except FileNotFoundError:
        raise FlowprepError(
            f"no such file: {path}", "give a run folder, or weights in it"
        ) from None
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise FlowprepError(
            f"{path} holds no weights of this program: {error}",
            "give best.safetensors or last.safetensors of a run",
        ) from error


def _check_format(path: Path, found: object) -> None:
    if found != FORMAT:
        raise FlowprepError(f"{path} has format {found}", f"this program reads {FORMAT}")


def load_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file, on the CPU."""
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def weights_of(run: str) -> Path:
    """The weights that `run` names: a file, or the best ones of a run folder."""
    path = Path(run)
    found = path / BEST if path.is_dir() else path
    if not found.is_file():
        raise FlowprepError(f"no weights at {found}", "give a finished run's folder, or a file")
    return found


def digest(path: Path) -> str:
    """What tells a file from any other."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_net(run: str) -> tuple[VideoModel, Meta]:
    """The network of a run with its weights, in eval mode on the CPU."""
    path = weights_of(run)
    meta = load_meta(path)
    net = build(meta.model)
    fill(net, load_weights(path), str(path))
    net.eval()
    return net, meta


def fill(net: nn.Module, weights: dict[str, Tensor], where: str) -> None:
    """Load every tensor. Raises FlowprepError naming the first that do not fit."""
    mine = net.state_dict()
    odd = sorted(mine.keys() ^ weights.keys())
    odd += [
        f"{name} {list(weights[name].shape)} for {list(mine[name].shape)}"
        for name in sorted(mine.keys() & weights.keys())
        if mine[name].shape != weights[name].shape
    ]
    if odd:
        raise FlowprepError(
            f"{where} is of another network: {', '.join(odd[:3])}"
            + (f" and {len(odd) - 3} more" if len(odd) > 3 else ""),
            "give the --arch and --width it was trained with; other classes need --reset-head",
        )
    net.load_state_dict(weights)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Everything a run needs to go on. Raises OSError; the old file stays then."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_whole(path, buffer.getvalue())


def load_state(path: Path) -> dict[str, Any]:
    """A saved state, on the CPU. Raises FlowprepError where the file is damaged."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        raise FlowprepError(
            f"{path} is damaged, or no state of a run",
            f"remove it to start anew, perhaps with --init {path.with_name(LAST)}",
        ) from error
    return state


def write_whole(path: Path, data: bytes) -> None:
    """Write aside, flush to disk, rename: the file is the old one or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def code_commit() -> str:
    """The commit of this code, with + where it was changed; "" outside its git checkout."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """Of what results depend on."""
    return {"flowprep": __version__, "torch": torch.__version__, "numpy": np.__version__}
