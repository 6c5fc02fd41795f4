"""An export as a bar while it runs, and in words at its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from flowprep.export.export import Exported, Watch
from flowprep.records import printable

SHOWN = 20
"""So many damaged samples are listed; the rest is counted."""
NAMED = 5
"""Of samples that lie there from earlier runs."""


@contextmanager
def watching() -> Iterator[Watch]:
    """A bar on standard error, where that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("export"), BarColumn(bar_width=24), MofNCompleteColumn())
    more = (TextColumn("samples"), TimeRemainingColumn())
    off = not console.is_terminal
    with Progress(*columns, *more, console=console, transient=True, disable=off) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def tell_exported(exported: Exported, shards: str, out: str) -> None:
    """Print what was made, what was there, what is damaged, and whether more is to come."""
    console = Console(highlight=False)

    def say(text: str) -> None:
        console.print(printable(text), markup=False, soft_wrap=True)

    for key, problem in sorted(exported.problems.items())[:SHOWN]:
        say(f"{key}: {problem}")
    if (n_more := len(exported.problems) - SHOWN) > 0:
        say(f"and {n_more} more")
    if stale := exported.stale.moved:
        say(f"{_some(stale)}: deleted, as the sample has another place now")
    if stale := exported.stale.pruned:
        say(f"{_some(stale)}: deleted, as the dataset has no such sample any more")
    if stale := exported.stale.left:
        say(f"{_some(stale)}: of samples that the dataset has no more; --prune deletes them")
    there = f", {exported.n_there} were there" if exported.n_there else ""
    say(f"{out}: {exported.n_made} samples exported{there}")
    if exported.unfinished:
        say(f"{shards} is not finished: run flowprep extract again, and then this for the rest")


def _some(places: list[str]) -> str:
    """How many there are, and the first few."""
    shown = ", ".join(sorted(places)[:NAMED]) + (", ..." if len(places) > NAMED else "")
    return f"{len(places)} stale ({shown})"
