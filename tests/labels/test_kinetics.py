"""Kinetics: ids of every look, all its ways to name and to place a file, csv and json."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowprep.errors import FlowprepError

CLASSES = [
    "abseiling",
    "air drumming",
    "massaging person's head",
    "passing American football (in game)",
    "tying knot (not on a tie)",
]
N_TRAIN, N_VAL, N_TEST = 200, 40, 10
HEAD = "label,youtube_id,time_start,time_end,split"
Row = tuple[str, str, int, int, str]  # as the columns of HEAD


def youtube_ids(n: int) -> list[str]:
    """Unlike one another in case only, too, and with every first letter there is."""
    random_ = random.Random(0)
    letters = string.ascii_letters + string.digits + "-_"
    starts = ["-", "--", "---", "_", "__", "9"]
    ids = ["aBcDeFgHiJk", "AbCdEfGhIjK"]
    while len(ids) < n:
        start = starts[len(ids) % len(starts)] if len(ids) % 2 else ""
        ids.append(start + "".join(random_.choices(letters, k=11 - len(start))))
    assert len({*ids}) == n
    return ids


IDS = youtube_ids(N_TRAIN + N_VAL + N_TEST)
ROWS: list[Row] = [
    (CLASSES[i % 5], id_, i, i + 10, "train" if i < N_TRAIN else "validate")
    for i, id_ in enumerate(IDS[: N_TRAIN + N_VAL])
]
SPLIT = {"train": "train", "validate": "val"}


def placed(number: int, row: Row) -> str:
    """Where a video lies: eight habits of downloaders."""
    label, id_, start, end, _ = row
    times = "_" + str(start).rjust(6, "0") + "_" + str(end).rjust(6, "0")
    mended = "".join(c for c in label.replace(" ", "_") if c not in "'()")
    return [
        f"{label}/{id_}{times}.mp4",
        f"{label.replace(' ', '_')}/{id_}{times}.mp4",
        f"{mended}/{id_}{times}.MP4",
        f"{id_}{times}.mp4",
        f"{id_}.mp4",
        f"flat/{id_}.webm",
        f"{label}/{id_}.MKV",
        f"deep/er/{id_}.mp4.mkv",
    ][number % 8]


GONE = set(range(0, N_TRAIN + N_VAL, 16))
"""Of these there is no file, as of one in twenty for every user of Kinetics."""
FILES = {placed(i, row): row for i, row in enumerate(ROWS) if i not in GONE}
STRANGE = ["holiday.mp4", "abseiling/AAAAAAAAAAA_000001_000011.mp4", "-.mp4", "_/_.mp4", "x y.avi"]
OTHER_TIMES = f"abseiling/{IDS[8]}_000900_000910.mp4"


@pytest.fixture(scope="module")
def kinetics(tmp_path_factory: pytest.TempPathFactory, touch: Callable[..., None]) -> Path:
    """videos/, train.csv (CRLF, byte order mark), val.csv, test.csv (no labels), *.json."""
    root = tmp_path_factory.mktemp("kinetics")
    untold = [f"{id_}_000000_000010.mp4" for id_ in IDS[-N_TEST:-2]]
    touch(root / "videos", [*FILES, *STRANGE, OTHER_TIMES, *untold])
    train = [f'"{r[0]}",{r[1]},{r[2]},{r[3]},{r[4]}' for r in ROWS[:N_TRAIN]]
    train += train[:3]
    text = "\r\n".join([HEAD + ",is_cc", *(line + ",0" for line in train)])
    (root / "train.csv").write_text("\ufeff" + text, encoding="utf-8", newline="")
    val = [",".join(map(str, r)) for r in ROWS[N_TRAIN:]]
    (root / "val.csv").write_text("\n".join([HEAD, *val, ""]))
    test = [f"{id_},0,10,test" for id_ in IDS[-N_TEST:]]
    (root / "test.csv").write_text("\n".join([HEAD.removeprefix("label,"), *test]))
    for name, rows in (("train", ROWS[:N_TRAIN]), ("validate", ROWS[N_TRAIN:])):
        (root / f"{name}.json").write_text(json.dumps({r[1]: as_json(r) for r in rows}))
    return root


def as_json(row: Row) -> dict[str, Any]:
    label, id_, start, end, split = row
    segment = [float(start), float(end)]
    subset = {"train": "training", "validate": "validation"}[split]
    return {
        "annotations": {"label": label, "segment": segment},
        "duration": 10.0,
        "subset": subset,
        "url": f"https://www.youtube.com/watch?v={id_}",
    }


def test_every_habit_of_naming_is_joined(kinetics: Path, meet: Callable[..., Any]) -> None:
    assert len(FILES) > 200
    names = [f"kinetics:{kinetics}/{split}.csv" for split in ("train", "val", "test")]
    met = meet(kinetics / "videos", *names)
    assert met.videos == {path: (SPLIT[row[4]], row[0]) for path, row in FILES.items()}
    assert met.classes == CLASSES
    assert met.counts() == {
        "matched": len(ROWS) - len(GONE),
        "file-missing": len(GONE) + 2,
        "label-missing": len(STRANGE) + 1,
        "unlabelled": N_TEST - 2,
        "listed-twice": 3,
    }
    assert met.paths("label-missing") == {*STRANGE, OTHER_TIMES}
    missing = {entry.id[:11] for entry in met.report.of("file-missing")}
    assert missing == {ROWS[i][1] for i in GONE} | {*IDS[-2:]}


def test_a_file_of_other_times_is_told_what_is_annotated(
    kinetics: Path, meet: Callable[..., Any]
) -> None:
    met = meet(kinetics / "videos", f"kinetics:{kinetics}/train.csv")
    (entry,) = [e for e in met.report.of("label-missing") if e.path == OTHER_TIMES]
    assert entry.detail == f"annotated is {IDS[8]}_000008_000018"


def test_json_says_the_same_as_csv(kinetics: Path, meet: Callable[..., Any]) -> None:
    as_csv = meet(kinetics / "videos", f"kinetics:{kinetics}/train.csv,{kinetics}/val.csv")
    as_json = meet(kinetics / "videos", f"kinetics:{kinetics}/train.json,{kinetics}/validate.json")
    assert as_json.videos == as_csv.videos
    assert as_json.classes == as_csv.classes
    once = {status: n for status, n in as_csv.counts().items() if status != "listed-twice"}
    assert as_json.counts() == once


def test_the_name_of_a_file_tells_the_split_where_no_column_does(
    tmp_path: Path, meet: Callable[..., Any], touch: Callable[..., None]
) -> None:
    touch(tmp_path, ["v/aBcDeFgHiJk.mp4", "v/AbCdEfGhIjK.mp4", "v/train/bbbbbbbbbbb.mp4"])
    head = "label,youtube_id,time_start,time_end"
    (tmp_path / "kinetics-400_val.csv").write_text(f"{head}\nrun,aBcDeFgHiJk,1,2\n")
    (tmp_path / "mine.csv").write_text(f"{head}\nrun,AbCdEfGhIjK,1,2\nrun,bbbbbbbbbbb,0,1\n")
    met = meet(tmp_path / "v", f"kinetics:{tmp_path}/kinetics-400_val.csv,{tmp_path}/mine.csv")
    assert {path: split for path, (split, _) in met.videos.items()} == {
        "aBcDeFgHiJk.mp4": "val",
        "AbCdEfGhIjK.mp4": "train",
        "train/bbbbbbbbbbb.mp4": "train",
    }


def test_of_two_files_the_replacement_is_taken_and_an_empty_one_never(
    tmp_path: Path, meet: Callable[..., Any], touch: Callable[..., None]
) -> None:
    """Kinetics-400 has a folder of replacements for damaged videos, and 0-byte files."""
    name, other = "aBcDeFgHiJk_000001_000011.mp4", "AbCdEfGhIjK_000001_000011.mp4"
    good = [f"replacement/replacement_for_corrupted_k400/{name}", f"val/b/{other}"]
    touch(tmp_path / "v", [*good, f"train/{name}"])
    touch(tmp_path / "v", [f"val/a/{other}"], b"")
    rows = ["run,aBcDeFgHiJk,1,11,train", "run,AbCdEfGhIjK,1,11,val"]
    (tmp_path / "k.csv").write_text("\n".join([HEAD, *rows]))
    met = meet(tmp_path / "v", f"kinetics:{tmp_path}/k.csv")
    assert set(met.videos) == set(good)
    assert met.paths("file-twice") == {f"train/{name}", f"val/a/{other}"}
    assert {e.detail for e in met.report.of("file-twice")} == {f"{p} is taken" for p in good}


@pytest.mark.parametrize("order", [1, -1])
def test_two_clips_of_one_video_are_told_apart_by_their_times(
    tmp_path: Path, meet: Callable[..., Any], touch: Callable[..., None], order: int
) -> None:
    """As in Kinetics-700-2020. A file without times may be either: an error if that matters."""
    rows = ["run,aBcDeFgHiJk,1,11,train", "walk,aBcDeFgHiJk,20,30,train"][::order]
    (tmp_path / "k.csv").write_text("\n".join([HEAD, *rows]))
    touch(tmp_path / "v", ["aBcDeFgHiJk_000020_000030.mp4", "aBcDeFgHiJk_000001_000011.mp4"])
    labels = f"kinetics:{tmp_path}/k.csv"
    assert meet(tmp_path / "v", labels).videos == {
        "aBcDeFgHiJk_000001_000011.mp4": ("train", "run"),
        "aBcDeFgHiJk_000020_000030.mp4": ("train", "walk"),
    }
    touch(tmp_path / "bare", ["aBcDeFgHiJk.mp4"])
    met = meet(tmp_path / "bare", labels)
    assert met.paths("contradiction") == {"aBcDeFgHiJk.mp4"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ("k.csv has no column youtube_id, time_start, time_end",)),
        ("label;youtube_id\na;b\n", ("no column youtube_id", "label;youtube_id", "commas")),
        (f"{HEAD}\nrun,aBcDeFgHiJk,one,2,train\n", ("k.csv, line 2", "'one'", "seconds")),
        (f"{HEAD}\nrun,aBcDeFgHiJk,nan,2,train\n", ("k.csv, line 2", "'nan'")),
        (f"{HEAD}\nrun,aBcDeFgHiJk,1,-2,train\n", ("k.csv, line 2", "'-2'")),
        (f"{HEAD}\n\n\nrun,,1,2,train\n", ("k.csv, line 4", "no youtube_id")),
        (f"{HEAD}\nrun,a,1,2,hold out\n", ("k.csv, line 2", "'hold out'", "train, val, test")),
        (f"{HEAD}\nrun, far,a,1,2,train\n", ("k.csv, line 2", "6 values", "quotes")),
        (f'{HEAD}\n"run,a,1,2,train\n', ("k.csv, line 2",)),
        (f'{HEAD}\n"ru\nn",a,1,2,train\n', ("k.csv, line 3", "line break")),
        (f"{HEAD}\nr\udcffn,a,1,2,train\n", ("k.csv, line 2", "not UTF-8")),
    ],
)
def test_a_bad_csv_is_told_by_its_line(
    tmp_path: Path, meet: Callable[..., Any], text: str, told: tuple[str, ...]
) -> None:
    path = tmp_path / "k.csv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    (tmp_path / "a.mp4").write_bytes(b"x")
    with pytest.raises(FlowprepError) as error:
        meet(tmp_path, f"kinetics:{path}")
    for part in told:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", ("k.json, line 1", "not JSON")),
        ('{\n"a": }', ("k.json, line 2", "not JSON")),
        ("[]", ("k.json holds a list",)),
        ('{"a": {"subset": "train"}}', ("k.json, 'a'", "annotations.segment")),
        ('{"a": {"annotations": {"segment": [1]}}}', ("k.json, 'a'", "annotations.segment")),
        ('{"a": {"annotations": {"segment": [1, "x"]}}}', ("k.json, 'a'", "'x'")),
        ('{"\\ud800": {"annotations": {"segment": [1, 2]}}}', ("not UTF-8",)),
    ],
)
def test_a_bad_json_is_told_by_its_line_or_entry(
    tmp_path: Path, meet: Callable[..., Any], text: str, told: tuple[str, ...]
) -> None:
    path = tmp_path / "k.json"
    path.write_text(text)
    (tmp_path / "a.mp4").write_bytes(b"x")
    with pytest.raises(FlowprepError) as error:
        meet(tmp_path, f"kinetics:{path}")
    for part in told:
        assert part in str(error.value)
