"""flowprep bench"""

from __future__ import annotations

import json

import click

from flowprep.cli.group import interrupt, on_signals
from flowprep.cli.options import Finite


@click.command()
@click.option(
    "--engine",
    "engines",
    multiple=True,
    metavar="NAME",
    help="Measure this one; may be repeated  [default: all that are live]",
)
@click.option(
    "--seconds",
    "budget_s",
    type=Finite(0, min_open=True),
    default=5.0,
    show_default=True,
    help="Of each measurement; two for an engine.",
)
@click.option(
    "--hours",
    type=Finite(0, min_open=True),
    default=100.0,
    show_default=True,
    help="Of video, that a dataset is told to hold.",
)
@click.option(
    "--fps",
    type=Finite(0, min_open=True),
    default=25.0,
    show_default=True,
    help="Its frames a second.",
)
@click.option(
    "--size",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Its short side in pixels.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON on standard output.")  # fmt: skip
def bench(
    engines: tuple[str, ...], budget_s: float, hours: float, fps: float, size: int, as_json: bool
) -> None:
    """Measure the engines on a rendered clip. And tell what a dataset would take."""
    from flowprep.bench.outlook import Dataset
    from flowprep.bench.run import Order
    from flowprep.bench.run import bench as measure
    from flowprep.bench.tell import as_dict, tell

    on_signals(interrupt)
    dataset = Dataset(hours=hours, fps=fps, short_side=size)
    order = Order(engines=list(engines), budget_s=budget_s, dataset=dataset)
    found = measure(order, lambda line: click.echo(line, err=True))
    if as_json:
        click.echo(json.dumps(as_dict(found)))
    else:
        tell(found)
