"""flowprep report"""

from __future__ import annotations

from pathlib import Path

import click

from flowprep.cli.group import interrupt, on_signals
from flowprep.cli.options import PlaceOf
from flowprep.storage import Place


@click.command()
@click.argument("shards", type=PlaceOf())
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default="report.html",
              show_default=True, help="Page to write; it needs no other file.")  # fmt: skip
@click.option("--samples", type=click.IntRange(0, 60), default=12, show_default=True,
              help="So many samples are shown, chosen by chance.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
              help="Of that choice.")  # fmt: skip
@click.option("--key", "keys", multiple=True, metavar="KEY",
              help="Show this one too: a key, or a video's path; may be repeated.")  # fmt: skip
def report(shards: Place, out: Path, samples: int, seed: int, keys: tuple[str, ...]) -> None:
    """Write one HTML page of what is in a dataset. It needs no other file; samples play."""
    from rich.filesize import decimal

    from flowprep.report.page import write_report

    on_signals(interrupt)
    n_bytes = write_report(shards, out, n_samples=samples, seed=seed, keys=keys)
    click.echo(f"{out}: {decimal(n_bytes)}")
