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
OTHER_VIDEOS = ("video.mp4", "UCF-101/Walk/v_Walk_g01_c01.avi", "hmdb51/walk/a.avi")
FILES = {
    "train.csv": "path,label,split\n"
    + "".join(f"videos/{name},{name.split('/')[0]},train\n" for name in VIDEOS),
    "labels.csv": "path,label\nwalk/a.mp4,stroll\nwalk/b.mp4,walk\nrun/c.mp4,run\n",
    "takedown.txt": "walk/a.mp4\n",
    "mine.csv": "name,label\na.mp4,walk\nb.mp4,walk\nc.mp4,run\n",
    "kinetics/train.csv": "label,youtube_id,time_start,time_end,split\n"
    "walk,a,0,10,train\nwalk,b,0,10,train\n",
    "kinetics/val.csv": "label,youtube_id,time_start,time_end,split\nrun,c,0,10,val\n",
    "ucfTrainTestlist/classInd.txt": "1 Walk\n",
    "ucfTrainTestlist/trainlist01.txt": "Walk/v_Walk_g01_c01.avi 1\n",
    "ucfTrainTestlist/testlist01.txt": "",
    "testTrainMulti_7030_splits/walk_test_split2.txt": "a.avi 1\n",
    "train.json": '[{"id": "a", "template": "walk"}, {"id": "b", "template": "walk"}]',
    "validation.json": '[{"id": "c", "template": "run"}]',
    "labels.json": '{"run": "0", "walk": "1"}',
}
"""What commands of the pages read: tables, lists, and other datasets' annotations."""


@pytest.fixture(scope="session")
def prepared(
    tmp_path_factory: pytest.TempPathFactory,
    make_video: Callable[..., Path],
    cli: Callable[..., Result],
) -> Path:
    """What the pages take for granted: videos/, the files above, and shards/ made of videos/."""
    folder = tmp_path_factory.mktemp("prepared")
    for name in [*(f"videos/{name}" for name in VIDEOS), *OTHER_VIDEOS]:
        make_video(folder / name)
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
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
