"""Accuracy by video of one or several runs, of RGB and flow together, and what each costs.

python -m train.evaluate --shards shards/ --run runs/d3d --also runs/d3d/teacher runs/rgb
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Literal

from flowprep.errors import FlowprepError
from train.checkpoint import Meta, load_net
from train.common import Place, gather, place, run_main, tell
from train.config import Source, parse
from train.cost import Costs, costs_of
from train.data.splits import SPLITS
from train.data.table import Table
from train.judged import Judged, Run, tell_table, write_report
from train.metrics import score, two_stream
from train.ranges import check
from train.setup import make_table, views

Part = Literal["auto", "test", "val", "train"]


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Score runs, and RGB and flow together, by video."""

    run: str = "runs/d3d"  # run folder or weights
    also: tuple[str, ...] = ()  # other runs; each of flow is also judged together with each of RGB
    on: Part = "auto"  # which videos; auto = test, or val where there is no test
    clips: int = 10  # windows of each clip, evenly spaced
    crops: int = 3  # crops of each window, along the long side
    batch: int = 8  # views at once
    out: str = ""  # folder of the report; "" = evaluation, beside the weights
    cost: bool = True  # count multiplications and measure seconds
    engine: str = "auto"  # of flowprep, for the seconds of TV-L1
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto = cuda where there is one
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto = bf16 on cuda
    data: Source = field(default_factory=Source)

    def __post_init__(self) -> None:
        check(self)


def evaluate(config: EvaluateConfig, table: Table, here: Place) -> list[Judged]:
    """Score every run on every video of `table`, and every pair of one of RGB and one of flow.

    Raises FlowprepError where the runs are of other classes or the dataset does not fit them.
    """
    runs = [_score(config, name, table, here) for name in (config.run, *config.also)]
    alone = [Judged(run.name, run.scores, (run,)) for run in runs]
    rgb, flow = ([r for r in runs if r.meta.modality == m] for m in ("rgb", "flow"))
    together = [
        Judged(f"{a.name} + {b.name}", two_stream(a.scores, b.scores), (a, b))
        for a, b in product(rgb, flow)
    ]
    return alone + together


def _score(config: EvaluateConfig, name: str, table: Table, here: Place) -> Run:
    net, meta = load_net(name)
    check_classes(name, meta, table)
    batches = views(
        table,
        meta.window,
        config.data,
        here,
        (meta.modality,),
        batch=config.batch,
        n_clips=config.clips,
        n_crops=config.crops,
    )
    with closing(batches):
        scores = score(net.to(here.device), meta.modality, batches, here)
        skipped = set().union(*gather(batches.skipped, here))
        if skipped and here.first:
            tell(f"{name}: {len(skipped)} damaged samples were left out")
    return Run(name, net, meta, scores)


def check_classes(name: str, meta: Meta, table: Table) -> None:
    """Raise FlowprepError unless the run's classes are the table's."""
    if meta.classes != table.classes:
        raise FlowprepError(
            f"{name} knows {len(meta.classes)} classes, {len(table.classes)} are asked for, "
            "or others in another order",
            "evaluate runs of one set of classes together",
        )


def other_parting(meta: Meta, data: Source, split: str) -> str:
    """How a run's videos were parted if not as `data` says: some judged here may have taught it."""
    theirs = meta.config.get("data", {})
    names = ("labels", "split", "val_share") if split == "val" else ("labels", "split")
    odd = [n for n in names if theirs.get(n, getattr(data, n)) != getattr(data, n)]
    return ", ".join(f"--{n.replace('_', '-')} {theirs[n] or 'none'}" for n in odd)


def pick_split(on: Part, table: Table) -> str:
    """The split to score. Raises FlowprepError when it is empty."""
    there = [split for split in SPLITS if len(table.only(split))]
    split = on if on != "auto" else "test" if "test" in there else "val"
    if split not in there:
        raise FlowprepError(f"no sample is in the split {split}", f"there are: {', '.join(there)}")
    return split


def _tell_partings(judged: list[Judged], data: Source, split: str) -> None:
    for run in {run.name: run for one in judged for run in one.runs}.values():
        if parting := other_parting(run.meta, data, split):
            tell(f"{run.name} was trained with {parting}: it may have learned from what is judged")


def main() -> None:
    config = parse(EvaluateConfig, "python -m train.evaluate")
    with place(config.device, config.precision) as here:
        table = make_table(config.data, load_net(config.run)[1].classes)
        split = pick_split(config.on, table)
        judged = evaluate(config, table.only(split), here)
        if here.first:
            _tell_partings(judged, config.data, split)
            costs = costs_of(judged, table, config.engine, here) if config.cost else Costs({}, "")
            tell_table(judged, split, costs)
            write_report(_out(config), judged, split, costs)


def _out(config: EvaluateConfig) -> Path:
    beside = Path(config.run)
    return (
        Path(config.out)
        if config.out
        else (beside if beside.is_dir() else beside.parent) / "evaluation"
    )


if __name__ == "__main__":
    run_main(main)
