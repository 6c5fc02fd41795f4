"""flowprep demo"""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", default="demo", type=click.Path(path_type=Path))
@click.option("--executor", type=click.Choice(["ray", "local"]), default="ray", show_default=True,
              help="Ray, or plain processes.")  # fmt: skip
def demo(folder: Path, executor: str) -> None:
    """Render videos with known motion into FOLDER, extract and verify them, show the result."""
    from flowprep.demo import run_demo

    run_demo(folder, executor)
