"""flowprep remove"""

from __future__ import annotations

from typing import TextIO

import click

from flowprep.cli.group import interrupt, on_signals


@click.command()
@click.argument("shards")
@click.option("--keys", type=click.File(encoding="utf-8", errors="backslashreplace"),
              help="A text with a key or a source path per line; - is standard input.")  # fmt: skip
@click.option("--key", "names", multiple=True, help="A key or a path; may be repeated.")
@click.option("--lift", is_flag=True, help="Let what was removed come back with the next extract.")
def remove(shards: str, keys: TextIO | None, names: tuple[str, ...], lift: bool) -> None:
    """Take samples out for good. By key, or all of a source file by its path."""
    from flowprep.records import printable
    from flowprep.run.remove import lift as run_lift
    from flowprep.run.remove import remove as run_remove

    on_signals(interrupt)
    wanted = [*names, *(keys or ())]
    if lift:
        n_lifted = run_lift(shards, wanted)
        click.echo(f"lifted: {n_lifted:,}; flowprep extract, or import, makes them again")
        return
    for line in run_remove(shards, wanted).lines():
        click.echo(printable(line))
