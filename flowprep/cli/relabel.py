"""flowprep relabel"""

from __future__ import annotations

from pathlib import Path

import click

from flowprep.cli.group import interrupt, on_signals


@click.command()
@click.argument("shards")
@click.argument("table", type=click.Path(path_type=Path))
@click.option("--cls", "with_cls", is_flag=True,
              help="Write the labels into the samples too (json and .cls).")  # fmt: skip
@click.option("--classes", default="", help="A text with all classes by index, one a line: the "
              "known ones first  [default: new ones follow by name]")  # fmt: skip
def relabel(shards: str, table: Path, with_cls: bool, classes: str) -> None:
    """Give samples new labels. TABLE is a .csv, .parquet or .jsonl with path or key, and label."""
    from flowprep.records import printable
    from flowprep.run.relabel import relabel as run_relabel

    on_signals(interrupt)
    done = run_relabel(shards, table, with_cls=with_cls, classes=classes)
    for line in done.lines():
        click.echo(printable(line))
