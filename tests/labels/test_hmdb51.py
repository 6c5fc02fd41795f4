"""HMDB51: three splits in one folder, and names that look like patterns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowprep.errors import FlowprepError

CLASSES = ["brush_hair", "climb_stairs", "kick_ball", "ride_bike", "sword"]
ODD = [
    "#437_How_To_Ride_A_Bike_{}_f_cm_np1_le_med_0.avi",
    "[Hot]_Show_(2)_{}_u_cm_np1_fr_med_1.avi",
    "Best_of_!_&_more_{}_f_nm_np1_ri_goo_2.avi",
    "What?_A_*_{}_f_cm_np2_ba_bad_0.avi",
    "20060723sfjffbartsinger_{}_f_cm_np1_ba_med_0.avi",
    "-dash_first_{}_u_nm_np1_fr_goo_3.avi",
    "A_(Movie)_part.2_{}_h_nm_np1_fr_goo_0.avi",
    "[a-z]_{}_h_nm_np1_fr_goo_0.avi",
]
N_MORE = 37
TAGS = {1: "train", 2: "test", 0: "unused"}


def names(label: str) -> list[str]:
    more = [f"April_{i:02d}_{label}_u_nm_np1_ba_goo_{i % 3}.avi" for i in range(N_MORE)]
    return [name.format(label) for name in ODD] + more


def tag(number: int, split: int) -> int:
    return [1, 1, 2, 0][(number + split) % 4]


GONE = {("sword", 0), ("sword", 12)}
THERE = {
    f"{label}/{name}": (label, i)
    for label in CLASSES
    for i, name in enumerate(names(label))
    if (label, i) not in GONE
}


@pytest.fixture(scope="module")
def hmdb51(tmp_path_factory: pytest.TempPathFactory, touch: Callable[..., None]) -> Path:
    """videos/, splits/ with three files for each class, a space at each end of a line."""
    root = tmp_path_factory.mktemp("hmdb51")
    touch(root / "videos", [*THERE, "sword/other[1].avi", "wave/a.avi"])
    touch(root / "splits", ["readme.txt"])
    for label in CLASSES:
        for split in (1, 2, 3):
            lines = [f"{name} {tag(i, split)} \n" for i, name in enumerate(names(label))]
            (root / "splits" / f"{label}_test_split{split}.txt").write_text("".join(lines))
    return root


@pytest.mark.parametrize(("number", "place"), [(1, "splits/"), (1, "splits#1"), (3, "splits/#3")])
def test_names_like_patterns_are_joined_in_the_split_asked_for(
    hmdb51: Path, meet: Callable[..., Any], number: int, place: str
) -> None:
    met = meet(hmdb51 / "videos", f"hmdb51:{hmdb51}/{place}")
    assert len(THERE) > 200
    assert met.videos == {path: (TAGS[tag(i, number)], label) for path, (label, i) in THERE.items()}
    assert met.classes == CLASSES
    assert met.counts() == {"matched": len(THERE), "file-missing": len(GONE), "label-missing": 2}
    assert met.paths("label-missing") == {"sword/other[1].avi", "wave/a.avi"}


def test_files_that_lie_flat_and_files_of_another_kind(
    hmdb51: Path, tmp_path: Path, meet: Callable[..., Any], touch: Callable[..., None]
) -> None:
    flat = [name.removesuffix(".avi") + ".MP4" for name in names("kick_ball")]
    touch(tmp_path, flat)
    met = meet(tmp_path, f"hmdb51:{hmdb51}/splits")
    assert met.videos == {name: (TAGS[tag(i, 1)], "kick_ball") for i, name in enumerate(flat)}


def test_one_name_in_two_classes_goes_by_the_folder(
    tmp_path: Path, meet: Callable[..., Any], touch: Callable[..., None]
) -> None:
    touch(tmp_path, ["v/run/a.avi", "v/walk/a.avi"])
    touch(tmp_path, [f"s/{label}_test_split1.txt" for label in ("run", "walk")], b"a.avi 1\n")
    met = meet(tmp_path / "v", f"hmdb51:{tmp_path}/s")
    assert met.videos == {"run/a.avi": ("train", "run"), "walk/a.avi": ("train", "walk")}
    touch(tmp_path, ["flat/a.avi"])
    assert len(meet(tmp_path / "flat", f"hmdb51:{tmp_path}/s").report.of("contradiction")) == 1


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("a.avi", ("run_test_split1.txt, line 2", "'a.avi'", "1 for training")),
        ("a.avi 3", ("run_test_split1.txt, line 2", "'a.avi 3'")),
        ("1", ("run_test_split1.txt, line 2", "'1'")),
    ],
)
def test_a_bad_line_is_told(
    tmp_path: Path, meet: Callable[..., Any], line: str, told: tuple[str, ...]
) -> None:
    (tmp_path / "a.avi").write_bytes(b"x")
    (tmp_path / "run_test_split1.txt").write_text(f"b.avi 1\n{line}\n")
    with pytest.raises(FlowprepError) as error:
        meet(tmp_path, f"hmdb51:{tmp_path}")
    for part in told:
        assert part in str(error.value)


def test_a_place_that_is_not_one_folder_with_the_split(
    hmdb51: Path, meet: Callable[..., Any]
) -> None:
    splits = hmdb51 / "splits"
    for place, told in {
        f"{splits}#4": ("no <class>_test_split4.txt", "1, 2, 3"),
        f"{hmdb51}/videos": ("splits in it: none",),
        f"{splits}/sword_test_split1.txt": ("is a file", "give a folder"),
        f"{splits},{splits}#2": ("2 places", "one of its splits"),
        f"{splits}/nowhere": ("no such file or folder",),
    }.items():
        with pytest.raises(FlowprepError) as error:
            meet(hmdb51 / "videos", f"hmdb51:{place}")
        for part in told:
            assert part in str(error.value)
