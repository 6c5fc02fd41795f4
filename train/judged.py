"""How runs did: as a table, as JSON, as a confusion picture."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from train.checkpoint import Meta, versions, write_whole
from train.confusion import write_confusion
from train.metrics import Scores
from train.models.base import VideoModel


@dataclass(frozen=True)
class Run:
    """A trained network and what it says about the videos."""

    name: str
    net: VideoModel
    meta: Meta
    scores: Scores


@dataclass(frozen=True)
class Judged:
    """A run, or one of RGB and one of flow together."""

    name: str
    scores: Scores
    runs: tuple[Run, ...]

    @property
    def sees_flow(self) -> bool:
        return any(run.meta.modality == "flow" for run in self.runs)


@dataclass(frozen=True)
class Cost:
    """Of one window. `with_tvl1_s` is `networks_s` where no flow is seen."""

    parameters: int
    macs: int
    networks_s: float
    with_tvl1_s: float


@dataclass(frozen=True)
class Costs:
    """Cost by name of what was judged, empty where none was measured, and how it was measured."""

    of: dict[str, Cost]
    how: str


def tell_table(judged: list[Judged], split: str, costs: Costs) -> None:
    """Print what each scored and costs."""
    table = Table()
    table.add_column("run", overflow="fold")
    for column in (*ACCURACY_COLUMNS, *(COST_COLUMNS if costs.of else ())):
        table.add_column(column, justify="right", no_wrap=True)
    for one in judged:
        scores = one.scores
        accuracy = f"{scores.top(1):.1%}", f"{scores.top(5):.1%}"
        table.add_row(one.name, *accuracy, *_cost_cells(costs.of.get(one.name)))
    console = Console(highlight=False)
    videos = " or ".join(f"{n:,}" for n in sorted({len(one.scores) for one in judged}))
    console.print(f"split {split}, by video: {videos}")
    console.print(table)
    if costs.how:
        console.print(costs.how, markup=False, soft_wrap=True)


ACCURACY_COLUMNS = ("top-1", "top-5")
COST_COLUMNS = ("M params", "GMACs", "nets ms", "+TV-L1 ms")


def _cost_cells(cost: Cost | None) -> tuple[str, ...]:
    if cost is None:
        return ()
    return (
        f"{cost.parameters / 1e6:.3f}",
        f"{cost.macs / 1e9:.3f}",
        f"{1e3 * cost.networks_s:.1f}",
        f"{1e3 * cost.with_tvl1_s:.1f}",
    )


def write_report(folder: Path, judged: list[Judged], split: str, costs: Costs) -> None:
    """Write evaluation.json and a confusion picture of each."""
    classes = judged[0].runs[0].meta.classes
    rows = {one.name: _row(one, classes, costs.of.get(one.name)) for one in judged}
    report = {"split": split, "runs": rows, "cost": costs.how, "versions": versions()}
    write_whole(folder / "evaluation.json", (json.dumps(report, indent=1) + "\n").encode())
    for one in judged:
        picture = folder / f"confusion-{re.sub(r'[^A-Za-z0-9]+', '-', one.name).strip('-')}.png"
        write_confusion(picture, one.scores.confusion(), classes, f"{one.name}, {split}")


def _row(one: Judged, classes: list[str], cost: Cost | None) -> dict[str, Any]:
    scores = one.scores
    shares = zip(classes, scores.per_class().tolist(), strict=True)
    return {
        "top1": scores.top(1),
        "top5": scores.top(5),
        "loss": scores.loss(),
        "videos": len(scores),
        "per_class_top1": {name: None if math.isnan(s) else s for name, s in shares},
        "cost": vars(cost) if cost else None,
    }
