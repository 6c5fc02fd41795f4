"""flowprep engines"""

from __future__ import annotations

import click


@click.command()
def engines() -> None:
    """List the engines that are live here. Of the others: what they lack, and how to get it."""
    from flowprep.flow.base import AUTO_ORDER, engine_status, registry

    for name in registry():
        status = engine_status(name)
        state = "live   " if status.available else "missing"
        auto = "  (auto tries it)" if name in AUTO_ORDER else ""
        click.echo(f"{state}  {name:<12} {status.summary}{auto}")
        click.echo(f"{'':21} {status.detail}")
        if not status.available:
            click.echo(f"{'':21} -> {status.install}")
