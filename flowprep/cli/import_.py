"""flowprep import"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flowprep.cli.extract import carry_out
from flowprep.cli.group import interrupt, on_signals
from flowprep.cli.options import RESOURCES, resource_options, run_options, some_setting_options
from flowprep.config import IMPORTED, Settings
from flowprep.rawframes import STYLES, get_style

TAKEN = (
    *("clip_max_s", "clip_frames", "clip_stride", "rgb_codec", "flow_codec"),
    *("shard_frames", "seed"),
)
"""Settings that mean the same as in extract."""


@click.group("import")
def import_() -> None:
    """Make shards of what other tools have extracted."""


@import_.command()
@click.argument("folder")
@click.option("--style", required=True, type=click.Choice(list(STYLES)),
              help="Who made the images: names, numbers, pairs, codes.")  # fmt: skip
@click.option("--out", required=True, help="Folder of the dataset.")
@click.option("--fps", type=float, default=25.0, show_default=True,
              help="Frames a second that the images were taken at.")  # fmt: skip
@click.option("--bound", "bound_px", type=float, default=20.0, show_default=True,
              help="Flow that the last code stands for, pixels.")  # fmt: skip
@click.option("--flow-map", type=click.Choice(["symmetric", "i3d", "i3d-floor"]),
              help="How flow became codes  [default: as the style has it]")  # fmt: skip
@click.option("--labels", type=click.Choice(["auto", "none"]), default="auto", show_default=True,
              help="The folders or the lists say, or nothing does.")  # fmt: skip
@click.option("--list", "lists", multiple=True, metavar="SPLIT=FILE",
              help="Only the folders in this list, with its labels; may be repeated.")  # fmt: skip
@click.option("--classes", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="Class names for the labels of the lists, one a line, from 0 on.")  # fmt: skip
@some_setting_options(*TAKEN)
@resource_options
@run_options
def rawframes(
    folder: str,
    out: str,
    lists: tuple[str, ...],
    classes: Path | None,
    dry_run: bool,
    retry_failed: bool,
    max_failures: int,
    strict_versions: bool,
    log_json: bool,
    quiet: bool,
    **given: Any,
) -> None:
    """Folders of RGB and flow images. All frames, at their size, with the flow they came with."""
    from flowprep.run.executors import Resources
    from flowprep.run.prepare import Request
    from flowprep.storage import read_text

    on_signals(interrupt)
    resources = Resources(**{name: given.pop(name) for name in RESOURCES})
    request = Request(
        src=folder,
        out=out,
        settings=imported_settings(**given),
        resources=resources,
        lists=dict(map(_split_and_file, lists)),
        classes=read_text(classes).splitlines() if classes else [],
        retry_failed=retry_failed,
        strict_versions=strict_versions,
    )
    carry_out(request, dry_run, max_failures, log_json, quiet)


def _split_and_file(text: str) -> tuple[str, Path]:
    from flowprep.records import SPLIT

    split, equals, name = text.partition("=")
    if not equals or not SPLIT.fullmatch(split):
        raise click.UsageError(f"--list {text!r}: write it as SPLIT=FILE, such as train=train.txt")
    if not Path(name).is_file():
        raise click.UsageError(f"--list {text!r}: there is no file {name!r}")
    return split, Path(name)


def imported_settings(
    *, style: str, fps: float, flow_map: str | None, bound_px: float, **given: Any
) -> Settings:
    """All frames as they are, with the flow they came with."""
    return Settings(
        engine=IMPORTED,
        engine_params={"style": style, "fps": fps},
        fps=0.0,
        short_side=0,
        flow_map=flow_map or get_style(style).flow_map,
        bound_px=bound_px,
        **{name: value for name, value in given.items() if value is not None},
    )
