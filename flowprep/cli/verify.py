"""flowprep verify"""

from __future__ import annotations

import sys
from typing import Any

import click

from flowprep.cli.group import (
    EXIT_FAILURES,
    EXIT_FINDINGS,
    EXIT_USER,
    interrupt,
    is_debug,
    on_signals,
)
from flowprep.cli.options import RESOURCES, PlaceOf, resource_options
from flowprep.storage import Place


@click.command()
@click.argument("shards", type=PlaceOf())
@click.option("--deep", is_flag=True, help="Decode every sample as well.")
@click.option("--repair", is_flag=True, help="Make what is damaged or missing again, nothing else.")
@click.option("--recompute", type=click.IntRange(1), metavar="N",
              help="Compute N samples again from their videos, and compare.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of the choice of samples.")
@click.option("--src", default="", help="Where the videos are now, if not where they were.")
@resource_options
@click.option("--json", "as_json", is_flag=True, help="Findings as JSON on standard output.")
def verify(
    shards: Place,
    deep: bool,
    repair: bool,
    recompute: int | None,
    seed: int,
    src: str,
    as_json: bool,
    **resources: Any,
) -> None:
    """Check every byte of a dataset, and mend it. With --deep every frame, with --recompute some
    flow; with --repair what is damaged is made again.
    """
    from flowprep.inspection import Inspection
    from flowprep.run.executors import Resources

    _refuse_idle({"src": repair or recompute, "seed": recompute} | dict.fromkeys(RESOURCES, repair))
    inspection = Inspection(
        shards=shards,
        deep=deep,
        n_recompute=recompute or 0,
        seed=seed,
        src=src,
        as_json=as_json,
        debug=is_debug(),
    )
    if repair:
        on_signals(interrupt)
        inspection.repair(Resources(**resources))
    else:
        inspection.check()
    inspection.tell()
    repaired = inspection.repaired
    if repaired and repaired.lost:
        sys.exit(EXIT_USER)
    if repaired and repaired.failures:
        sys.exit(EXIT_FAILURES)
    sys.exit(EXIT_FINDINGS if inspection.findings else 0)


def _refuse_idle(used: dict[str, Any]) -> None:
    """Refuse options that would do nothing: name -> whether something uses it."""
    context = click.get_current_context()
    for option in context.command.params:
        name = option.name or ""
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and not used.get(name, True):
            goes_with = "--repair or --recompute" if name == "src" else "--repair"
            goes_with = "--recompute" if name == "seed" else goes_with
            raise click.UsageError(f"{option.opts[0]} does nothing without {goes_with}")
