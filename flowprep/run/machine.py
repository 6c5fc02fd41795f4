"""What machine this is, as Linux tells it, and what is installed on it."""

from __future__ import annotations

import platform
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from flowprep import __version__

CPUINFO, GPUS = Path("/proc/cpuinfo"), Path("/proc/driver/nvidia/gpus")
LIBRARIES = ("numpy", "av", "opencv-contrib-python-headless", "opencv-contrib-python")


def installed_versions() -> dict[str, str]:
    """Versions of what can change output bytes."""
    found = {"flowprep": __version__}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def describe_machine() -> str:
    """Processor, and how many GPUs of which model: "AMD EPYC, 2 x NVIDIA H100"."""
    models = Counter(_value(path, "Model") for path in sorted(GPUS.glob("*/information")))
    gpus = [f"{n} x {model}" if n > 1 else model for model, n in models.items()]
    return ", ".join([_value(CPUINFO, "model name") or platform.machine(), *gpus])


def _value(path: Path, name: str) -> str:
    """What a file of `name : value` lines has first under this name, "" when it has none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    found = (
        value for key, _, value in (line.partition(":") for line in lines) if key.strip() == name
    )
    return " ".join(next(found, "").split())
