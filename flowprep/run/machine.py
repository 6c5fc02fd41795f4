"""What machine this is, as Linux tells it."""

from __future__ import annotations

import platform
from collections import Counter
from pathlib import Path

CPUINFO, GPUS = Path("/proc/cpuinfo"), Path("/proc/driver/nvidia/gpus")


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
