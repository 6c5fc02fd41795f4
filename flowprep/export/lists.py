"""The lists that readers of raw frames start from: a line per video, `folder images label`.

Two for each split, as in TSN: `train_rgb.txt` counts RGB images and `train_flow.txt` flow images.
mmaction2 takes the folder relative to its `data_prefix`, TSN as it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from flowprep.export.formats import Form
from flowprep.rawframes import get_style
from flowprep.shard.schema import SampleRow

RELATIVE = frozenset({"denseflow"})
"""Styles whose reader puts a folder of its own before each path."""


def lists(out: Path, form: Form, rows: Iterable[tuple[SampleRow, str]]) -> dict[str, bytes]:
    """File name -> content, for samples and their places. No label is -1, as mmaction2 has it."""
    style = get_style(form.style)
    root = "" if style.name in RELATIVE else f"{(out / form.to).as_posix()}/"
    lines = defaultdict[str, list[str]](list)
    for row, place in rows:
        counts = {"rgb": row.n_frames - style.n_unsaved, "flow": row.n_flows}
        for kind, n_images in counts.items():
            line = f"{root}{place} {n_images} {row.label_index}\n"
            lines[f"{row.split}_{kind}.txt"].append(line)
    return {name: "".join(sorted(found)).encode() for name, found in lines.items()}
