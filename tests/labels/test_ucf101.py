"""UCF101: the order of classInd.txt, lists with and without numbers, a class of two spellings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowprep.errors import FlowprepError

CLASSES = ["ApplyEyeMakeup", "Haircut", "Hammering", "HammerThrow", "HandstandPushups",
           "HandstandWalking", "YoYo"]  # fmt: skip
"""As classInd.txt orders them, which is not how sorting does: T comes before i there."""
GROUPS, CLIPS = 8, 5
NO_FILES = "HandstandWalking"


def video(label: str, group: int, clip: int, suffix: str = "avi") -> str:
    """As the lists and the dataset have them."""
    named = "HandStandPushups" if label == "HandstandPushups" else label
    return f"{label}/v_{named}_g{group:02d}_c{clip:02d}.{suffix}"


ALL = [
    (label, group, clip)
    for label in CLASSES
    for group in range(1, GROUPS + 1)
    for clip in range(1, CLIPS + 1)
]
TEST_GROUPS = {1: {1, 2}, 2: {3, 4}}
GONE = {("YoYo", 1, 1), ("YoYo", 8, 5)}
STRANGE = ["YoYo/v_YoYo_g99_c01.avi", "Extra/v_Extra_g01_c01.avi"]


def split_of(group: int, number: int = 1) -> str:
    return "test" if group in TEST_GROUPS[number] else "train"


@pytest.fixture(scope="module")
def ucf101(tmp_path_factory: pytest.TempPathFactory, touch: Callable[..., None]) -> Path:
    """videos/, lists/ with two splits; Windows line ends, and a space at each end of a line."""
    root = tmp_path_factory.mktemp("ucf101")
    there = [one for one in ALL if one[0] != NO_FILES and one not in GONE]
    touch(root / "videos", [video(*one, "AVI" if one[1] == 3 else "avi") for one in there])
    touch(root / "videos", STRANGE)
    (root / "lists").mkdir()
    for number in (1, 2):
        lines: dict[str, list[str]] = {"train": [], "test": []}
        for one in ALL:
            split = split_of(one[1], number)
            index = f" {CLASSES.index(one[0]) + 1}" if split == "train" else ""
            lines[split].append(f"{video(*one)}{index} \r\n")
        for split, rows in lines.items():
            (root / "lists" / f"{split}list{number:02d}.txt").write_bytes("".join(rows).encode())
    index = "".join(f"{i} {label} \r\n" for i, label in enumerate(CLASSES, start=1))
    (root / "lists" / "classInd.txt").write_bytes(b"\xef\xbb\xbf" + index.encode())
    return root


def expected(number: int = 1) -> dict[str, tuple[str, str]]:
    return {
        video(*one, "AVI" if one[1] == 3 else "avi"): (split_of(one[1], number), one[0])
        for one in ALL
        if one[0] != NO_FILES and one not in GONE
    }


@pytest.mark.parametrize("how", ["two lists", "folder"])
def test_both_lists_of_a_split(ucf101: Path, meet: Callable[..., Any], how: str) -> None:
    lists = ucf101 / "lists"
    texts = [f"ucf101:{lists}/{name}list01.txt" for name in ("train", "test")]
    met = meet(ucf101 / "videos", *(texts if how == "two lists" else [f"ucf101:{lists}"]))
    assert len(met.videos) > 200
    assert met.videos == expected()
    assert met.classes == CLASSES
    assert met.counts() == {
        "matched": 6 * GROUPS * CLIPS - len(GONE),
        "file-missing": GROUPS * CLIPS + len(GONE),
        "label-missing": len(STRANGE),
    }
    assert met.paths("label-missing") == set(STRANGE)


def test_another_split(ucf101: Path, meet: Callable[..., Any]) -> None:
    met = meet(ucf101 / "videos", f"ucf101:{ucf101}/lists/#2")
    assert met.videos == expected(2)


def test_one_list_labels_only_its_own(ucf101: Path, meet: Callable[..., Any]) -> None:
    met = meet(ucf101 / "videos", f"ucf101:{ucf101}/lists/trainlist01.txt")
    assert met.videos == {path: told for path, told in expected().items() if told[0] == "train"}
    assert met.classes == CLASSES


@pytest.mark.parametrize(
    "spelling",
    [
        "HandstandPushups/v_HandStandPushups_g01_c01.avi",
        "HandstandPushups/v_HandstandPushups_g01_c01.avi",
        "HandStandPushups/v_HandStandPushups_g01_c01.avi",
        "v_HandstandPushups_g01_c01.mp4",
    ],
)
@pytest.mark.parametrize("listed", ["HandstandPushups/v_HandStandPushups_g01_c01.avi",
                                    "HandstandPushups/v_HandstandPushups_g01_c01.avi"])  # fmt: skip
def test_every_spelling_of_handstand_pushups(
    tmp_path: Path, meet: Callable[..., Any], touch: Callable[..., None], spelling: str, listed: str
) -> None:
    touch(tmp_path / "v", [spelling])
    (tmp_path / "classInd.txt").write_text("1 Haircut\n2 HandstandPushups\n")
    (tmp_path / "testlist01.txt").write_text(f"{listed}\n")
    met = meet(tmp_path / "v", f"ucf101:{tmp_path}/testlist01.txt")
    assert met.videos == {spelling: ("test", "HandstandPushups")}


def test_lists_of_two_splits_contradict_one_another(ucf101: Path, meet: Callable[..., Any]) -> None:
    lists = ucf101 / "lists"
    met = meet(ucf101 / "videos", f"ucf101:{lists}/trainlist01.txt,{lists}/testlist02.txt")
    in_both = [one for one in ALL if one[1] in TEST_GROUPS[2]]
    wrong = met.report.of("contradiction")
    assert len(wrong) == len(in_both)
    assert "trainlist01.txt, line " in wrong[0].detail
    assert "testlist02.txt, line " in wrong[0].detail


@pytest.mark.parametrize(
    ("classes", "listed", "told"),
    [
        (None, "A/v_A_g01_c01.avi 1", ("no classInd.txt", "comes with the lists")),
        ("1 A\n2 B", "A/v_A_g01_c01.avi 3", ("trainlist01.txt, line 1", "no class 3", "1 to 2")),
        ("1 A\n2 B", "\nB/v_B_g01_c01.avi 1", ("trainlist01.txt, line 2", "'B'", "A (class 1)")),
        ("1 A\n2 B", "C/v_C_g01_c01.avi", ("trainlist01.txt, line 1", "'C'", "classInd.txt")),
        ("1 A\n2 B", f"A/v_A_g01_c01.avi {'9' * 5000}", ("trainlist01.txt, line 1", "A/v_A")),
        ("1 A\n1 B", "A/v_A_g01_c01.avi 1", ("classInd.txt, line 2", "'1 B'")),
        ("1 A\n3 B", "A/v_A_g01_c01.avi 1", ("classInd.txt", "1, 2, 3")),
        ("A 1\nB 2", "A/v_A_g01_c01.avi 1", ("classInd.txt, line 1", "'A 1'")),
    ],
)
def test_bad_files_are_told_by_their_lines(
    tmp_path: Path, meet: Callable[..., Any], classes: str | None, listed: str, told: tuple[str]
) -> None:
    (tmp_path / "a.avi").write_bytes(b"x")
    (tmp_path / "trainlist01.txt").write_text(listed)
    if classes is not None:
        (tmp_path / "classInd.txt").write_text(classes)
    with pytest.raises(FlowprepError) as error:
        meet(tmp_path, f"ucf101:{tmp_path}/trainlist01.txt")
    for part in told:
        assert part in str(error.value)
