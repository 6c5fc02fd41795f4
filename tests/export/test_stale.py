"""An export goes on after samples of its dataset got other labels, or were removed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from flowprep.config import load_toml

DENSEFLOW = ("--to", "rawframes", "--style", "denseflow")


@pytest.fixture
def living(dataset: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(dataset, tmp_path / "shards"))


def folders(out: Path) -> set[str]:
    return {path.parent.relative_to(out).as_posix() for path in out.rglob("img_00000.jpg")}


def listed(out: Path) -> set[str]:
    lines = [line for path in out.glob("*_rgb.txt") for line in path.read_text().splitlines()]
    return {f"rawframes/{line.rsplit(maxsplit=2)[0]}" for line in lines}


def test_a_sample_with_another_label_moves(living: Path, tmp_path: Path, cli: Any) -> None:
    out = tmp_path / "out"
    assert cli("export", living, "--out", out, *DENSEFLOW).exit_code == 0
    before = {"rawframes/ride_bike/a", "rawframes/walk/b.x", "rawframes/walk/c"}
    assert folders(out) == listed(out) == before
    table = tmp_path / "labels.csv"
    table.write_text("path,label\ntrain/ride bike/a.mp4,walk\ntrain/walk/b.x.mp4,jump\n")
    assert cli("relabel", living, table).exit_code == 0
    again = cli("export", living, "--out", out, *DENSEFLOW)
    assert again.exit_code == 0, again.output
    assert "2 stale (ride_bike/a, walk/b.x): deleted" in again.output
    after = {"rawframes/walk/a", "rawframes/jump/b.x", "rawframes/walk/c"}
    assert folders(out) == listed(out) == after
    assert not (out / "rawframes" / "ride_bike").exists()


def test_what_was_removed_leaves_the_lists_and_goes_when_told(
    living: Path, tmp_path: Path, cli: Any
) -> None:
    out = tmp_path / "out"
    assert cli("export", living, "--out", out, *DENSEFLOW).exit_code == 0
    (out / "mine_rgb.txt").write_text("")
    assert cli("remove", living, "--key", "val/walk/c.mp4").exit_code == 0
    for _ in range(2):
        told = cli("export", living, "--out", out, *DENSEFLOW)
        assert told.exit_code == 0
        assert "1 stale (walk/c): of samples that the dataset has no more; --prune" in told.output
        assert folders(out) - listed(out) == {"rawframes/walk/c"}
    lists = {path.name for path in out.glob("*_*.txt")}
    assert lists == {"train_rgb.txt", "train_flow.txt", "mine_rgb.txt"}
    told = cli("export", living, "--out", out, *DENSEFLOW, "--prune")
    assert "1 stale (walk/c): deleted" in told.output
    assert folders(out) == listed(out) == {"rawframes/ride_bike/a", "rawframes/walk/b.x"}
    assert "walk/c" not in (out / ".flowprep" / "done.txt").read_text()
    assert "stale" not in cli("export", living, "--out", out, *DENSEFLOW).output


def test_all_of_it_can_go(living: Path, tmp_path: Path, cli: Any) -> None:
    order = ("export", living, "--out", tmp_path / "out", "--to", "npz")
    assert cli(*order).exit_code == 0
    names = ("train/ride bike/a.mp4", "train/walk/b.x.mp4", "val/walk/c.mp4")
    assert (
        cli("remove", living, *(part for name in names for part in ("--key", name))).exit_code == 0
    )
    assert cli(*order).exit_code == 2
    assert cli(*order, "--prune").exit_code == 0
    assert not list((tmp_path / "out").rglob("*.npz"))


def test_another_dataset_of_the_same_settings_is_refused(
    dataset: Path, living: Path, tmp_path: Path, cli: Any
) -> None:
    """Settings alone do not tell datasets apart: it would prune what the other one has."""
    config = living / "_flowprep" / "config.toml"
    root = load_toml(config)["source"]["root"]
    config.write_text(config.read_text().replace(root, "/videos/of/another"))
    order = ("--out", tmp_path / "out", "--to", "npz")
    assert cli("export", dataset, *order).exit_code == 0
    result = cli("export", living, *order, "--prune")
    assert result.exit_code == 2
    assert f"of {root}' -> " in result.output
    assert len(list((tmp_path / "out").rglob("*.npz"))) == 3


def test_a_dataset_that_is_being_changed_is_refused(living: Path, tmp_path: Path, cli: Any) -> None:
    (living / "_flowprep" / "pending.json").write_text("{}")
    result = cli("export", living, "--out", tmp_path / "out", "--to", "npz")
    assert (result.exit_code, "is being changed" in result.output) == (2, True)
    assert not (tmp_path / "out").exists()
