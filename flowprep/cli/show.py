"""flowprep show"""

from __future__ import annotations

from pathlib import Path

import click

from flowprep.cli.group import interrupt, on_signals
from flowprep.cli.options import Finite, PlaceOf
from flowprep.storage import Place


@click.command()
@click.argument("shards", type=PlaceOf())
@click.argument("key")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False),
              help="Picture to write: .png is a contact sheet, .gif and .mp4 play.")  # fmt: skip
@click.option("--max-px", type=Finite(0, min_open=True),
              help="Pixels of full colour  [default: longer than most of the clip]")  # fmt: skip
def show(shards: Place, key: str, out: Path | None, max_px: float | None) -> None:
    """Print the json of a sample, or draw it. KEY is its key, or the path of its video; with --out
    it is drawn.
    """
    from flowprep.report.show import draw, tell

    if max_px and not out:
        raise click.UsageError("--max-px does nothing without --out")
    on_signals(interrupt)
    click.echo(draw(shards, key, out, max_px) if out else tell(shards, key))
