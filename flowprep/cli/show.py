"""flowprep show"""

from __future__ import annotations

from pathlib import Path

import click

from flowprep.cli.group import interrupt, on_signals
from flowprep.cli.options import Finite


@click.command()
@click.argument("shards", type=click.Path(path_type=Path))
@click.argument("key")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False),
              help="Picture to write: .png is a contact sheet, .gif and .mp4 play.")  # fmt: skip
@click.option("--max-px", type=Finite(0, min_open=True),
              help="Flow that has the full colour  [default: the longest of the clip]")  # fmt: skip
def show(shards: Path, key: str, out: Path | None, max_px: float | None) -> None:
    """Print the json of the sample KEY (a key, or the path of a video); --out draws it."""
    from flowprep.report.show import show as show_sample

    on_signals(interrupt)
    told, note = show_sample(shards, key, out, max_px)
    click.echo(told)
    if note:
        click.echo(note, err=True)
