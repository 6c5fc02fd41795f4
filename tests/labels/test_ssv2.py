"""Something-Something v2: templates with brackets, indices as text, a test set without labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowprep.errors import FlowprepError

TEMPLATES = [
    "Putting [something] on a surface",
    "Moving [something] up",
    "Pretending or failing to wipe [something] off of [something]",
    "Approaching [something] with your camera",
    "Pulling two ends of [something] so that it gets stretched",
]
"""By index; sorting orders them otherwise."""
CLASSES = [t.replace("[", "").replace("]", "") for t in TEMPLATES]
N_TRAIN, N_VAL, N_TEST = 180, 50, 15
GONE = {"7", "77", "188"}
FIRST_TEST = N_TRAIN + N_VAL


def entry(number: int) -> dict[str, Any]:
    template = TEMPLATES[number % 5]
    said = template.replace("[something]", "a blue cup")
    holders = ["a blue cup"] * template.count("[")
    return {"id": str(number), "label": said, "template": template, "placeholders": holders}


def path_of(number: int) -> str:
    return f"20bn-something-something-v2/{number}.{'WEBM' if number % 9 == 0 else 'webm'}"


@pytest.fixture(scope="module")
def ssv2(tmp_path_factory: pytest.TempPathFactory, touch: Callable[..., None]) -> Path:
    """videos/, and the files of labels/ as the download has them."""
    root = tmp_path_factory.mktemp("ssv2")
    touch(root / "videos", [path_of(i) for i in range(FIRST_TEST + N_TEST) if str(i) not in GONE])
    touch(root / "videos", ["9999.webm", "readme.webm"])
    whole = {
        "train": [entry(i) for i in range(N_TRAIN)],
        "validation": [entry(i) for i in range(N_TRAIN, FIRST_TEST)],
        "test": [{"id": str(i)} for i in range(FIRST_TEST, FIRST_TEST + N_TEST)],
        "labels": {name: str(i) for i, name in enumerate(CLASSES)},
    }
    (root / "labels").mkdir()
    for name, content in whole.items():
        text = "\ufeff" + json.dumps(content, indent=1).replace("\n", "\r\n")
        (root / "labels" / f"{name}.json").write_text(text, encoding="utf-8", newline="")
    answers = [f"{i};{CLASSES[i % 5]}" for i in range(FIRST_TEST, FIRST_TEST + N_TEST)]
    (root / "labels" / "test-answers.csv").write_text("\n".join(answers))
    return root


def expected(first: int, stop: int, split: str) -> dict[str, tuple[str, str]]:
    numbers = [i for i in range(first, stop) if str(i) not in GONE]
    return {path_of(i): (split, CLASSES[i % 5]) for i in numbers}


LABELLED = expected(0, N_TRAIN, "train") | expected(N_TRAIN, FIRST_TEST, "val")


def test_lists_of_all_splits(ssv2: Path, meet: Callable[..., Any]) -> None:
    places = [f"{ssv2}/labels/{n}.json" for n in ("train", "labels", "validation", "test")]
    met = meet(ssv2 / "videos", "ssv2:" + ",".join(places))
    assert len(met.videos) > 200
    assert met.videos == LABELLED
    assert met.classes == CLASSES
    assert met.counts() == {
        "matched": len(LABELLED),
        "file-missing": len(GONE),
        "label-missing": 2,
        "unlabelled": N_TEST,
    }
    assert {entry.id for entry in met.report.of("file-missing")} == GONE


def test_the_answers_label_the_test_set(ssv2: Path, meet: Callable[..., Any]) -> None:
    texts = [f"ssv2:{ssv2}/labels/{n}" for n in ("train.json", "test.json", "test-answers.csv")]
    met = meet(ssv2 / "videos", *texts)
    test = expected(FIRST_TEST, FIRST_TEST + N_TEST, "test")
    assert met.videos == expected(0, N_TRAIN, "train") | test
    assert "listed-twice" not in met.counts()


def test_labels_json_is_found_beside_a_list_by_either_name(
    tmp_path: Path, meet: Callable[..., Any], touch: Callable[..., None]
) -> None:
    touch(tmp_path, ["v/3.webm"])
    (tmp_path / "something-something-v2-validation.json").write_text(json.dumps([entry(3)]))
    table = {name: str(i) for i, name in enumerate(CLASSES)}
    labels = f"ssv2:{tmp_path}/something-something-v2-validation.json"
    with pytest.raises(FlowprepError, match=r"none is beside something-something-v2-validation"):
        meet(tmp_path / "v", labels)
    (tmp_path / "something-something-v2-labels.json").write_text(json.dumps(table))
    assert meet(tmp_path / "v", labels).videos == {"3.webm": ("val", CLASSES[3])}


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("train.json", [entry(1), {"template": "x"}], ("train.json, entry 2", "no id", '"78687"')),
        ("train.json", [entry(1), 7], ("train.json, entry 2", "no id")),
        ("train.json", [entry(1) | {"template": "Eating [x]"}], ("entry 1", "'Eating x'")),
        ("train.json", "text", ("train.json holds no list",)),
        ("labels.json", {"a": "0", "b": "2"}, ("labels.json", "index", "0")),
        ("labels.json", {"a": "0", "b": "zero"}, ("labels.json", "index")),
        ("labels.json", {"a\nb": "0"}, ("labels.json", "'a\\nb'", "line break")),
        ("labels.json", {"\ud800": "0"}, ("labels.json", "not UTF-8")),
        ("labels2.json", {"a": "0"}, ("2 files with classes", "one labels.json")),
        ("test-answers.csv", "7,up", ("test-answers.csv, line 1", "'7,up'", "<id>;<class>")),
        ("test-answers.csv", "7;up", ("test-answers.csv, line 1", "'up'", "labels.json")),
    ],
)
def test_bad_files_are_told_by_their_lines(
    tmp_path: Path, meet: Callable[..., Any], name: str, content: Any, told: tuple[str, ...]
) -> None:
    files: dict[str, Any] = {
        "labels.json": {n: str(i) for i, n in enumerate(CLASSES)},
        "train.json": [entry(1)],
        name: content,
    }
    for file, value in files.items():
        is_text = file.endswith(".csv")
        (tmp_path / file).write_text(value if is_text else json.dumps(value))
    (tmp_path / "1.webm").write_bytes(b"x")
    with pytest.raises(FlowprepError) as error:
        meet(tmp_path, "ssv2:" + ",".join(f"{tmp_path}/{file}" for file in files))
    for part in told:
        assert part in str(error.value)
