"""A csv of one's own: joined by path, by name, or by name without suffix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowprep.errors import FlowprepError
from flowprep.labels.registry import READERS

N = 220
PATHS = [f"{'abécd'[i % 5]}/x {i:03d} [é].{'MP4' if i % 3 else 'mp4'}" for i in range(N)]
GONE = set(PATHS[::20])
STRANGE = ["x 000 [é].mp4", "more/b.mp4"]


def label(path: str) -> str:
    return f"class, {path[0]}"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, touch: Callable[..., None]) -> Path:
    root = tmp_path_factory.mktemp("mine")
    touch(root / "videos", [p for p in PATHS if p not in GONE] + STRANGE)
    return root


def write(path: Path, head: str, rows: list[str]) -> str:
    path.write_text("\ufeff" + "\r\n".join([head, *rows]), encoding="utf-8", newline="")
    return f"csv:{path}"


def test_by_path(tree: Path, meet: Callable[..., Any]) -> None:
    """A path that is only a name is meant for that place, not for every folder."""
    rows = [f'"{label(p)}", .\\{p.replace("/", chr(92))}, Validation, 7' for p in PATHS]
    rows.append("z, b.mp4, test, 1")
    met = meet(tree / "videos", write(tree / "by_path.csv", "Label,Path,Split,fold", rows))
    assert met.videos == {p: ("val", label(p)) for p in PATHS if p not in GONE}
    assert met.classes == ["class, a", "class, b", "class, c", "class, d", "class, é", "z"]
    assert met.counts() == {
        "matched": N - len(GONE),
        "file-missing": len(GONE) + 1,
        "label-missing": len(STRANGE),
    }
    assert met.paths("label-missing") == set(STRANGE)


@pytest.mark.parametrize("column", ["name", "id"])
def test_by_name_with_or_without_suffix(tree: Path, meet: Callable[..., Any], column: str) -> None:
    """Its first name is there twice, in two folders: one is taken."""
    names = [p.split("/")[1] for p in PATHS]
    names = names if column == "name" else [n.rpartition(".")[0] for n in names]
    rows = [f'{n},"{label(p)}"' for n, p in zip(names, PATHS, strict=True)]
    met = meet(tree / "videos", write(tree / f"{column}_test.csv", f"{column},label", rows))
    expected = {p: ("test", label(p)) for p in PATHS if p not in GONE}
    expected["x 000 [é].mp4"] = ("test", label(PATHS[0]))
    assert met.videos == expected
    assert met.counts() == {
        "matched": N - len(GONE) + 1,
        "file-missing": len(GONE) - 1,
        "label-missing": 1,
    }


@pytest.mark.parametrize("column", ["name", "id"])
def test_a_name_that_several_videos_have_tells_none_of_them(
    tmp_path: Path, touch: Callable[..., None], meet: Callable[..., Any], column: str
) -> None:
    touch(tmp_path / "videos", ["walk/a.mp4", "jump/a.mp4", "walk/b.mp4"])
    rows = {"name": ["a.mp4,walk", "b.mp4,walk"], "id": ["a,walk", "b,walk"]}[column]
    met = meet(tmp_path / "videos", write(tmp_path / "l.csv", f"{column},label", rows))
    with pytest.raises(FlowprepError, match=r"fits jump/a.mp4, walk/a.mp4") as error:
        met.report.check(READERS["csv"])
    assert "by their paths" in error.value.hint
    by_path = write(tmp_path / "p.csv", "path,label", ["walk/a.mp4,walk", "jump/a.mp4,jump"])
    met = meet(tmp_path / "videos", by_path)
    assert met.videos == {"walk/a.mp4": ("train", "walk"), "jump/a.mp4": ("train", "jump")}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("path,class\na.mp4,x\n", ("l.csv has no column label", "path,class")),
        ("file,label\na.mp4,x\n", ("l.csv has the columns file, label", "path", "name", "id")),
        ("path,id,label\na.mp4,a,x\n", ("l.csv has the columns path, id, label", "one of")),
        ("path,label\n,x\n", ("l.csv, line 2", "no path")),
        ("path,label\n/a.mp4,x\n", ("l.csv, line 2", "'/a.mp4'", "--src")),
    ],
)
def test_a_bad_csv_is_told(
    tmp_path: Path, meet: Callable[..., Any], text: str, told: tuple[str, ...]
) -> None:
    (tmp_path / "l.csv").write_text(text)
    (tmp_path / "a.mp4").write_bytes(b"x")
    with pytest.raises(FlowprepError) as error:
        meet(tmp_path, f"csv:{tmp_path}/l.csv")
    for part in told:
        assert part in str(error.value)
