"""flowprep demo"""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", default="demo", type=click.Path(path_type=Path))
@click.option("--executor", type=click.Choice(["ray", "local"]), default="ray", show_default=True,
              help="Ray, or plain processes.")  # fmt: skip
def demo(folder: Path, executor: str) -> None:
    """Render, extract and verify videos of known motion, in FOLDER. Then tell how far the flow is
    from the truth, and draw it.
    """
    from flowprep.demo import run_demo

    run_demo(folder, executor)
