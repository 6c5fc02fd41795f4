"""flowprep export"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from flowprep.cli.group import EXIT_FAILURES, complain, interrupt, on_signals


@click.command()
@click.argument("shards")
@click.option("--to", required=True, type=click.Choice(["rawframes", "npz", "flo"]),
              help="Folders of images, NumPy archives, or Middlebury's flow files.")  # fmt: skip
@click.option("--out", required=True, help="Folder to export to; run it again to go on.")
@click.option("--style", type=click.Choice(["denseflow", "tsn"]),
              help="Names, numbers and lists as this tool has them (rawframes).")  # fmt: skip
@click.option("--image", type=click.Choice(["jpg", "png"]), default="jpg", show_default=True,
              help="JPEG of quality 95, or PNG, which loses nothing (rawframes).")  # fmt: skip
@click.option("--bound", type=float, default=20.0, show_default=True,
              help="Flow beyond it saturates, pixels (rawframes).")  # fmt: skip
@click.option("--keys", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="Only the samples whose keys are in this file, one a line.")  # fmt: skip
@click.option("--split", default="", help="Only the samples of this split.")
@click.option("--prune", is_flag=True,
              help="Delete samples of earlier runs that the dataset has no more.")  # fmt: skip
def export(
    shards: str, to: str, out: str, keys: Path | None, split: str, prune: bool, **images: Any
) -> None:
    """Write samples as the files that other tools read."""
    from flowprep.export.export import Order
    from flowprep.export.export import export as run_export
    from flowprep.export.tell import tell_exported, watching
    from flowprep.storage import read_text

    _refuse_idle(to)
    on_signals(interrupt)
    order = Order(
        shards=shards,
        out=out,
        form=_form(to, **images),
        keys=frozenset(read_text(keys).split()) if keys else None,
        split=split,
        prune=prune,
    )
    with watching() as watch:
        exported = run_export(order, watch)
    tell_exported(exported, shards, out)
    if exported.problems:
        complain(
            f"{len(exported.problems)} samples are damaged and were not exported",
            f"flowprep verify {shards} --repair makes them again; then run the same command again",
        )
        sys.exit(EXIT_FAILURES)


def _form(to: str, style: str | None, image: str, bound: float) -> Any:
    from flowprep.export.formats import Form
    from flowprep.quantize import make_quantizer
    from flowprep.rawframes import get_style

    if to != "rawframes":
        return Form(to=to)
    if style is None:
        raise click.UsageError("--to rawframes needs --style: denseflow or tsn")
    make_quantizer(get_style(style).flow_map, bound)  # refuses an unusable bound
    return Form(to=to, style=style, image=image, bound_px=bound)


def _refuse_idle(to: str) -> None:
    context = click.get_current_context()
    for name in ("style", "image", "bound"):
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and to != "rawframes":
            raise click.UsageError(f"--{name} does nothing with --to {to}")
