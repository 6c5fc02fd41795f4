"""Which numbers settings may have."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from flowprep.errors import FlowprepError

RANGES: dict[str, tuple[float, float]] = {
    "val_share": (0.01, 0.9),
    "split": (0, 1000),
    "frames": (0, 4096),
    "stride": (1, 1000),
    "resize": (0, 4096),
    "crop": (0, 4096),
    "workers": (-1, 1024),
    "width": (0.01, 16),
    "dropout": (0, 0.99),
    "bn_momentum": (1e-4, 1),
    "lr_backbone": (0, 1000),
    "epochs": (0.001, 1e6),
    "batch": (1, 1e6),
    "micro_batch": (0, 1e6),
    "lr": (1e-9, 1e3),
    "momentum": (0, 0.9999),
    "weight_decay": (0, 1e3),
    "warmup": (0, 1),
    "clip_norm": (0, 1e9),
    "ema": (0, 0.999999),
    "precise_bn": (0, 1e6),
    "save_minutes": (0, 1e6),
    "lambda_": (0, 1e9),
    "temperature": (0.01, 1000),
    "steps": (1, 1e9),
    "clips": (1, 1e4),
    "crops": (1, 1e4),
    "seed": (0, 2**31 - 1),
}


def check(config: Any) -> None:
    """Raise FlowprepError unless every number lies in its range."""
    for name, value in flat(config).items():
        low, high = RANGES.get(name, (None, None))
        if low is not None and high is not None and not low <= value <= high:
            flag = name.strip("_").replace("_", "-")
            raise FlowprepError(
                f"--{flag} {value:g} is not usable", f"allowed: {low:g} to {high:g}"
            )


def flat(config: Any) -> dict[str, Any]:
    """The settings by name, groups dissolved."""
    found: dict[str, Any] = {}
    for f in fields(config):
        value = getattr(config, f.name)
        found |= flat(value) if is_dataclass(value) else {f.name: value}
    return found
