"""The command line: options in, exit code out. The work is imported inside the commands."""

from __future__ import annotations

import io
import sys

import click

from flowprep import __version__
from flowprep.cli import (
    bench,
    demo,
    engines,
    export,
    extract,
    import_,
    recipes,
    relabel,
    remove,
    report,
    show,
    status,
    verify,
)
from flowprep.cli.group import Group


@click.group("flowprep", cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="flowprep")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def main(debug: bool) -> None:
    """Videos to verified WebDataset shards of RGB and TV-L1 optical flow."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may lack letters of a file's name
        sys.stdout.reconfigure(errors="backslashreplace")


for command in (
    extract.extract,
    status.status,
    verify.verify,
    report.report,
    show.show,
    relabel.relabel,
    remove.remove,
    import_.import_,
    export.export,
    engines.engines,
    recipes.recipes,
    bench.bench,
    demo.demo,
):
    main.add_command(command)
