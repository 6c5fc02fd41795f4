"""flowprep status"""

from __future__ import annotations

import json
import sys

import click

from flowprep.cli.group import EXIT_FINDINGS, interrupt, on_signals
from flowprep.cli.options import PlaceOf
from flowprep.storage import Place


@click.command()
@click.argument("shards", type=PlaceOf())
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def status(shards: Place, as_json: bool) -> None:
    """Tell how far a dataset is, and who is at work on it. From any machine; nothing is written.

    Exit code 0: it is finished, or a run is on; 1: it is interrupted or damaged.
    """
    from flowprep.run.status import status_of
    from flowprep.run.tell_status import status_as_dict, status_lines

    on_signals(interrupt)
    found = status_of(shards, lambda line: click.echo(line, err=True))
    if as_json:
        click.echo(json.dumps(status_as_dict(found)))
    else:
        for line in status_lines(found):
            click.echo(line)
    sys.exit(0 if found.state in ("running", "finished") else EXIT_FINDINGS)
