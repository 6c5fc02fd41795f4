"""Where samples go, whatever strangers called their files."""

from __future__ import annotations

from dataclasses import fields
from pathlib import PurePosixPath
from typing import Any

import pytest

from flowprep.export.places import places, safe_name
from flowprep.shard.schema import SampleRow


def row(path: str, label: str = "", number: int = 0, key: str = "") -> SampleRow:
    values: dict[str, Any] = {
        f.name: {"str": "", "int": 0, "float": 0.0}[str(f.type)] for f in fields(SampleRow)
    }
    key = key or f"key-{abs(hash((path, number))):020d}-{number:04d}"
    return SampleRow(**values | {"path": path, "label": label, "clip_number": number, "key": key})


def placed(*rows: SampleRow, **how: bool) -> list[str]:
    found = places(rows, **how)
    return [found[one.key] for one in rows]


def test_class_and_name_of_the_video() -> None:
    rows = [row("train/ride/a.mp4", "ride"), row("val/walk/v_1.b.avi", "walk")]
    assert placed(*rows) == ["ride/a", "walk/v_1.b"]
    assert placed(*rows, classless=True, to_first_dot=True) == ["a", "v_1"]


def test_pieces_of_a_video_have_numbers() -> None:
    assert placed(row("a.mp4", number=0), row("a.mp4", number=1)) == ["a_0000", "a_0001"]


def test_blanks_would_cut_a_line_of_a_list() -> None:
    assert placed(row("x/a b\tc.mp4", "ride a\u00a0bike")) == ["ride_a_bike/a_b_c"]


def test_what_two_videos_would_share_neither_gets() -> None:
    rows = [row("x/a.mp4", "l", key="k-1"), row("y/A.avi", "l", key="k-2"), row("z/b.mp4", "l")]
    assert placed(*rows) == ["l/k-1", "l/k-2", "l/b"]


def test_a_video_called_as_the_key_of_another_takes_its_own() -> None:
    rows = [row("x/a.mp4", key="k-1"), row("y/a.mp4", key="k-2"), row("z/k-1.mp4", key="k-3")]
    assert placed(*rows) == ["k-1", "k-2", "k-3"]


HOSTILE = [
    *("..", ".", "", "../../etc/passwd", "/etc/passwd", "a\\..\\b", "C:evil", ".flowprep", "\0"),
    *("a\nb", "é" * 300, "x" * 300, "\u202egpj.exe", "\ud800", "...."),
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_stays_in_its_folder(name: str) -> None:
    safe = safe_name(name)
    assert PurePosixPath("out", safe).parts == ("out", safe)
    assert safe not in ("", ".", "..")
    assert not safe.startswith(".")
    assert len(safe.encode()) <= 200
    assert safe.isprintable()
    assert len(safe.split()) == 1
