"""A small dataset to try the commands of the pages on."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

sys.path.append(str(Path(__file__).parent))
pytest.register_assert_rewrite("rules")

VIDEOS = ("walk/a.mp4", "walk/b.mp4", "run/c.mp4")


@pytest.fixture(scope="session")
def prepared(
    tmp_path_factory: pytest.TempPathFactory,
    make_video: Callable[..., Path],
    cli: Callable[..., Result],
) -> Path:
    """What the pages take for granted: videos/, video.mp4, train.csv, and shards/ made of videos/.

    A page that needs more files finds them here as soon as they are made here.
    """
    folder = tmp_path_factory.mktemp("prepared")
    for name in VIDEOS:
        make_video(folder / "videos" / name)
    make_video(folder / "video.mp4")
    rows = [f"videos/{name},{name.split('/')[0]},train" for name in VIDEOS]
    (folder / "train.csv").write_text("\n".join(["path,label,split", *rows, ""]))
    fast = ("--executor", "local", "--workers", 1, "--engine", "constant", "--quiet")
    made = cli("extract", "--src", folder / "videos", "--out", folder / "shards", *fast)
    assert made.exit_code == 0, made.output
    return folder


@pytest.fixture
def sandbox(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which the test is in."""
    folder = tmp_path / "sandbox"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    return folder
