"""Reading files of weights. Nothing here executes what a file holds."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowprep.errors import FlowprepError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name from .npz, .safetensors, .pt, .pth or .bin; a "module." before all is cut.

    Raises FlowprepError when the file cannot be read or holds anything but named tensors.
    """
    read = READERS.get(path.suffix.lower())
    if read is None:
        what = f"{path} does not look like a file of weights"
        raise FlowprepError(what, f"known endings: {' '.join(READERS)}")
    try:
        found = read(path)
    except OSError as error:
        raise FlowprepError(f"{path} cannot be read: {error}", "check the path") from error
    except DAMAGED as error:
        told = str(error).partition("\n")[0]
        hint = "only plain tensors or arrays are read, never pickled objects; get the file again"
        raise FlowprepError(
            f"{path} is damaged, or holds more than weights: {told}", hint
        ) from error
    return _without_prefix(_checked(path, found))


def _checked(path: Path, found: Any) -> dict[str, Tensor]:
    hint = "give a file that holds a state dict and nothing else"
    if not isinstance(found, dict):
        raise FlowprepError(f"{path} holds a {type(found).__name__}, not tensors by name", hint)
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            what = f"{path}: {key!r} is of type {type(value).__name__}, not a tensor"
            raise FlowprepError(what, hint)
    return found


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    if all(key.startswith("module.") for key in tensors):
        return {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def _read_npz(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _read_torch(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


DAMAGED = (ValueError, TypeError, RuntimeError, EOFError, pickle.PickleError, zipfile.BadZipFile)
"""What the three readers raise for bytes they cannot use, beside OSError."""

READERS: dict[str, Callable[[Path], Any]] = {
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    ".pt": _read_torch,
    ".pth": _read_torch,
    ".bin": _read_torch,
}
