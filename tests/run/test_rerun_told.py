"""What a rerun says of shards that are there, and of clips that the source has no more."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from flowprep.synth import Motion, render, write_video

OPTIONS = ("--engine", "constant", "--executor", "local", "--size", "native")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "a.mp4"
    write_video(path, render(Motion(dx_px=1.0), 4, 32, 48, 0), 25)
    return path


def test_a_rerun_says_that_there_is_nothing_to_make_and_what_has_gone(
    video: Path, tmp_path: Path, cli: Any
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    shutil.copy(video, source / "a.mp4")
    shutil.copy(video, source / "b.mp4")
    first = cli("extract", "--src", source, "--out", out, *OPTIONS)
    assert (first.exit_code, "nothing to make" in first.output) == (0, False)
    again = cli("extract", "--src", source, "--out", out, *OPTIONS)
    assert "nothing to make: all 2 shards are there" in again.stderr
    assert "not in the source" not in again.stderr
    (source / "b.mp4").rename(source / "c.mp4")
    renamed = cli("extract", "--src", source, "--out", out, *OPTIONS)
    assert "1 finished clips are not in the source now and stay, b.mp4 for one" in renamed.stderr
    assert "nothing to make" not in renamed.stderr
    assert len(list(out.glob("*.tar"))) == 3


def test_an_export_of_what_is_not_finished_says_so(video: Path, tmp_path: Path, cli: Any) -> None:
    """A run that was killed leaves the shards it has made, and no dataset.json."""
    out = tmp_path / "out"
    assert cli("extract", "--src", video, "--out", out, *OPTIONS).exit_code == 0
    whole = cli("export", out, "--to", "flo", "--out", tmp_path / "whole")
    (out / "_flowprep" / "dataset.json").unlink()
    part = cli("export", out, "--to", "flo", "--out", tmp_path / "part")
    assert (whole.exit_code, part.exit_code) == (0, 0)
    assert "not finished" not in whole.output
    assert f"{out} is not finished: run flowprep extract again" in part.output
