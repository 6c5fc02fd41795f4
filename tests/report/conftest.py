"""A labelled dataset with failures, whose names would like to be markup."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowprep.synth import Motion, render, write_video

sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of six videos of two clips each, and three files that are none."""
    from hostile_names import LABELS

    folder = tmp_path_factory.mktemp("source")
    names = ["<b>bold.mp4", 'it\'s "quoted".mp4', "\u202egnp.mp4", "a.mp4", "b.mp4", "c.mp4"]
    rows = []
    for number, name in enumerate(names):
        frames = render(Motion(dx_px=1.0), 12, 48, 64, seed=number)
        write_video(folder / name, frames, 25, crf=4)
        rows.append((name, LABELS[number % 4], ["train", "val"][number // 4]))
    for name in ("<script>.mp4", "empty & gone.mp4", "x.mp4"):
        (folder / name).write_bytes(b"no video" if name != "x.mp4" else b"")
        rows.append((name, "plain", "train"))
    with (folder / "list.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return folder / "list.csv"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, source: Path, cli: Callable[..., Any]) -> Path:
    from hostile_names import DX_PX

    out = tmp_path_factory.mktemp("made") / "dataset"
    options = f"--executor local --workers 1 --engine constant --engine-param dx={DX_PX} "
    options += "--engine-param dy=0 "
    options += "--size native --clip-frames 6 --shard-frames 24 --max-failures 3"
    result = cli("extract", "--src", source, "--out", out, *options.split())
    assert result.exit_code == 0, result.output
    return out
