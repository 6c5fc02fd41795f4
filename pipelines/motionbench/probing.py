"""Jobs that ask how much motion features hold, and what networks cost."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flowprep.flow.base import engine_status, registry
from pipelines.motionbench.bench import Bench
from pipelines.motionbench.dataset import Task
from pipelines.motionbench.training import TrainJob
from train.common import Place
from train.cost import costs_of
from train.data.table import Table
from train.evaluate import EvaluateConfig, evaluate
from train.judged import Judged
from train.models.base import ModelConfig, build
from train.models.count import macs
from train.probe import ProbeConfig, run_probe
from train.setup import make_table

LAYER = "3A"
ARTICLE_THW = (64, 224, 224)
FLO_HEADER_BYTES = 12
ERRORS = ("layer", "epe_px", "zero_flow_epe_px", "mean_flow_epe_px")
COST_TRIES = 5
"""Other work makes times longer, never shorter: the shortest of so many counts."""
NO_PRODUCT = ("constant", "reference")
"""Engines that nobody extracts a dataset with."""


@dataclass(frozen=True)
class ProbeJob:
    """Flow decoded from the features of a trained network: at 3A, or over the layers."""

    task: Task
    arm_name: str
    seed: int
    decoder: Literal["simple", "spatial", "pwc"]
    finetune: bool = False
    over_layers: bool = False

    @property
    def name(self) -> str:
        what = "-layers" * self.over_layers + "-tuned" * self.finetune
        return f"probe/{self.arm_name}-s{self.seed}-{self.decoder}{what}"

    def needs(self, bench: Bench) -> list[str]:
        return [TrainJob(self.task, self.arm_name, self.seed).name]

    def do(self, bench: Bench) -> dict[str, Any]:
        out = bench.run(self.name)
        config = ProbeConfig(
            run=str(bench.run(self.needs(bench)[0])),
            layer=bench.scale.probe_layers if self.over_layers else (LAYER,),
            decoder=self.decoder,
            finetune=self.finetune,
            steps=bench.scale.probe_steps,
            batch=bench.scale.optim.batch,
            seed=self.seed,
            out=str(out),
            data=bench.data(self.task),
        )
        with bench.place() as here:
            run_probe(config, here)
        report = json.loads((out / "probe.json").read_text(encoding="utf-8"))
        first = report["layers"][0]["layer"]
        return {
            **asdict(self),
            "task": str(self.task),
            "unit": report["unit"],
            "clips": report["clips"],
            "layers": [{name: row[name] for name in ERRORS} for row in report["layers"]],
            "shown": {what: _flo(out / f"{first}_{what}.flo") for what in ("tvl1", "decoded")},
        }


def _flo(path: Path) -> list[Any]:
    """Flow [2, H, W] of a Middlebury file, in hundredths of a pixel."""
    data = path.read_bytes()
    width, height = np.frombuffer(data, "<i4", 2, 4).tolist()
    flow_HW2 = np.frombuffer(data, "<f4", offset=FLO_HEADER_BYTES).reshape(height, width, 2)
    hundredths: list[Any] = np.rint(100 * flow_HW2.transpose(2, 0, 1)).astype(int).tolist()
    return hundredths


@dataclass(frozen=True)
class CostJob:
    """What the student costs, and what two streams cost with each engine that is live here."""

    task: Task
    seed: int

    name = "cost"

    def needs(self, bench: Bench) -> list[str]:
        return [TrainJob(self.task, arm, self.seed).name for arm in ("d3d", "flow")]

    def do(self, bench: Bench) -> dict[str, Any]:
        student, flow = (str(bench.run(name)) for name in self.needs(bench))
        data = bench.data(self.task)
        config = EvaluateConfig(run=student, also=(flow,), clips=1, crops=1, data=data)
        table = make_table(data)
        engines: dict[str, Any] = {}
        with bench.place() as here:
            judged = evaluate(config, table.only("val"), here)
            for engine in _engines():
                engines[engine] = _cheapest(judged, table, engine, here)
        rgb, both = _article_macs(3), _article_macs(3) + _article_macs(2)
        return {"engines": engines, "macs_article": {"d3d": rgb, "two-stream": both}}


def _cheapest(judged: list[Judged], table: Table, engine: str, here: Place) -> dict[str, Any]:
    """Costs of student, flow and both, each time the shortest of COST_TRIES; and how measured."""
    loads, tries = [os.getloadavg()[0]], []
    for _ in range(COST_TRIES):
        tries.append(costs_of(judged, table, engine, here))
        loads.append(os.getloadavg()[0])
    found: dict[str, Any] = {}
    for name, one in zip(("d3d", "flow", "two-stream"), judged, strict=True):
        costs = [vars(costs.of[one.name]) for costs in tries]
        found[name] = {what: min(cost[what] for cost in costs) for what in costs[0]}
    load = f"load average {min(loads):.1f} to {max(loads):.1f}"
    return found | {"how": f"{tries[0].how}; the shortest of {COST_TRIES} such, {load}"}


def _engines() -> list[str]:
    return [n for n in registry() if n not in NO_PRODUCT and engine_status(n).available]


def _article_macs(channels: int) -> int:
    """Multiply-adds of S3D-G on the windows of the article; nothing is computed."""
    net = build(ModelConfig(in_channels=channels))
    return macs(net, (channels, *ARTICLE_THW))["total"]
