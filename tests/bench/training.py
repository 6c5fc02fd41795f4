"""Training speed: clips a second of a D3D step, plain and compiled, and the loader's share.

    python training.py                                  # this machine's device, two sizes
    python training.py --shards shards/                 # and fed from shards, at the first size
    python training.py --shape 16x112 --width 0.25 --batch 4      # a CPU

A step is a student with gradient and a teacher without. A line's variants take turns, so that they
meet the same machine. With --shards the same step takes its batches from the loader: its share is
the part of the time in which the step waits for one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from itertools import product
from statistics import median
from typing import Any

import machine
import torch

from train.common import Place, pick_device
from train.config import Data, DistillConfig, Machine, Net, Optim
from train.data.batch import Batch
from train.data.loader import train_loader
from train.data.table import load_table
from train.data.windows import WindowConfig
from train.models.base import ModelConfig, build
from train.objective import Distill
from train.setup import workers_of
from train.step import Stepper

N_CLASSES, WARM_UP, ROUNDS, STEPS = 400, 3, 5, 4


def main() -> None:
    options = _parse()
    device = pick_device("auto")
    rows = [row for shape in options.shape for row in _compute(shape, device, options)]
    if options.shards:
        rows.append(_fed(options.shape[0], device, options))
    print(machine.markdown(rows))
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    machine.save(f"training_{name.replace(' ', '-')}", {"torch": torch.__version__, "table": rows})


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", action="append", help="frames x side, such as 16x112")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--shards", default="")
    options = parser.parse_args()
    options.shape = options.shape or ["64x224", "16x112"]
    return options


def _compute(
    shape: str, device: torch.device, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Batches already on the device: what the networks alone cost."""
    batch = _random_batch(shape, device, options.batch)
    precisions = (False, True) if device.type == "cuda" else (False,)
    variants = list(product(precisions, (False, True)))
    steppers = [_stepper(Place(0, 1, device, b), c, options.width) for b, c in variants]
    for stepper in steppers:
        _seconds(stepper, batch, WARM_UP)
    times = [[_seconds(s, batch, STEPS) for s in steppers] for _ in range(ROUNDS)]
    for (bf16, compiled), seconds in zip(variants, zip(*times, strict=True), strict=True):
        yield {
            "window": shape,
            "batches": "on the device",
            "precision": "bf16" if bf16 else "fp32",
            "compiled": compiled,
            "clips/s": round(options.batch / median(seconds), 2),
            "loader's share": "",
        }


def _fed(shape: str, device: torch.device, options: argparse.Namespace) -> dict[str, Any]:
    """Batches from shards: how long the step waits for them."""
    here = Place(0, 1, device, device.type == "cuda")
    stepper = _stepper(here, False, options.width)
    frames, side = map(int, shape.split("x"))
    table = load_table(options.shards).only("train")
    window = WindowConfig(frames=frames, crop=side)
    workers = workers_of(Data(), here)
    batches = train_loader(table, window, batch=options.batch, seed=0, workers=workers, pin=True)
    for _ in range(WARM_UP):
        stepper.take(next(batches))
    start, waited_s = time.perf_counter(), 0.0
    for _ in range(ROUNDS * STEPS):
        asked = time.perf_counter()
        batch = next(batches)
        waited_s += time.perf_counter() - asked
        stepper.take(batch)["loss"].item()
    total_s = time.perf_counter() - start
    batches.close()
    return {
        "window": shape,
        "batches": f"loader, {workers} workers",
        "precision": "bf16" if here.bf16 else "fp32",
        "compiled": False,
        "clips/s": round(options.batch * ROUNDS * STEPS / total_s, 2),
        "loader's share": f"{waited_s / total_s:.0%}",
    }


def _seconds(stepper: Stepper, batch: Batch, steps: int) -> float:
    """Seconds of a step."""
    start = time.perf_counter()
    for _ in range(steps):
        terms = stepper.take(batch)
    terms["loss"].item()
    return (time.perf_counter() - start) / steps


def _stepper(here: Place, compiled: bool, width: float) -> Stepper:
    torch.manual_seed(0)
    config = DistillConfig(
        net=Net(width=width), optim=Optim(lr=1e-6), machine=Machine(compile=compiled)
    )
    student, teacher = (
        build(ModelConfig(in_channels=channels, n_classes=N_CLASSES, width=width))
        for channels in (3, 2)
    )
    return Stepper(config, here, Distill(student, teacher.to(here.device), config), 10**6)


def _random_batch(shape: str, device: torch.device, size: int) -> Batch:
    frames, side = map(int, shape.split("x"))
    rgb = torch.randint(0, 256, (size, frames, side, side, 3), dtype=torch.uint8, device=device)
    flow = torch.rand(size, 2, frames, side, side, device=device) - 0.5
    label = torch.randint(0, N_CLASSES, (size,), device=device)
    return Batch(rgb.permute(0, 4, 1, 2, 3), flow, label, label)


if __name__ == "__main__":
    main()
