"""The policy of the join: what is told, what is refused, and the report itself."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from flowprep.config import Labels
from flowprep.errors import FlowprepError
from flowprep.labels.registry import READERS, chosen
from flowprep.run.progress import make_display

HEAD = "name,label,split"


@pytest.fixture
def mine(tmp_path: Path, meet: Callable[..., Any], touch: Callable[..., None]) -> Any:
    """mine(files, rows): the join of a folder of files with a csv of rows."""

    def run(files: list[str], rows: list[str]) -> Any:
        touch(tmp_path / "videos", files)
        (tmp_path / "l.csv").write_text("\n".join([HEAD, *rows]))
        return meet(tmp_path / "videos", f"csv:{tmp_path}/l.csv")

    return run


def test_every_reader_is_a_setting_and_the_other_way_round() -> None:
    assert {*READERS, "auto", "none"} == set(get_args(Labels))


def test_rows_that_agree_are_told_and_one_may_tell_what_another_leaves_out(mine: Any) -> None:
    met = mine(["a.mp4", "b.mp4"], ["a,x,val", "a,x,val", "b,,test", "b,y,"])
    assert met.videos == {"a.mp4": ("val", "x"), "b.mp4": ("test", "y")}
    assert met.counts() == {"matched": 2, "listed-twice": 1}
    assert met.report.of("listed-twice")[0].detail == "l.csv, line 2; l.csv, line 3"


@pytest.mark.parametrize("second", ["a,y,val", "a,x,train"])
def test_rows_that_contradict_one_another_are_an_error_with_both_lines(
    mine: Any, second: str
) -> None:
    met = mine(["a.mp4", "b.mp4"], ["a,x,val", "b,x,val", second])
    with pytest.raises(FlowprepError) as error:
        met.report.check(READERS["csv"])
    for part in ("1 annotations that contradict", "l.csv, line 2", "l.csv, line 4", "val/x"):
        assert part in str(error.value)


def test_nothing_matched_shows_a_file_and_an_annotation(mine: Any) -> None:
    met = mine(["run/video_1.mp4"], ["video-1,run,train"])
    with pytest.raises(FlowprepError) as error:
        met.report.check(READERS["csv"])
    for part in ("'run/video_1.mp4'", "'video-1'", "--src", "--labels csv:"):
        assert part in str(error.value)


def test_annotations_without_a_label_for_any_file_say_so(mine: Any) -> None:
    with pytest.raises(FlowprepError, match=r"l.csv, line 2 .*tell no label") as error:
        mine(["a.mp4"], ["a,,test"]).report.check(READERS["csv"])
    assert "--labels none" in error.value.hint


def test_missing_files_and_missing_labels_are_no_error(mine: Any) -> None:
    met = mine(["a.mp4", "c.mp4"], ["a,x,val", "b,x,val"])
    met.report.check(READERS["csv"])
    assert met.counts() == {"matched": 1, "file-missing": 1, "label-missing": 1}
    assert met.report.leaves_out


def test_the_report_in_lines_names_the_first_few(mine: Any) -> None:
    files = [f"f{i}.mp4" for i in range(7)]
    lines = list(mine(["a.mp4", *files], ["a,x,val", "b,x,val"]).report.lines())
    assert lines[0] == "labels of csv: 1 videos with an annotation"
    assert lines[1:] == [
        "  1 annotated, but no file in --src: b",
        "  7 files without an annotation, left out: f0.mp4, f1.mp4, f2.mp4, f3.mp4, f4.mp4, ...",
    ]


@pytest.mark.parametrize("quiet", [True, False])
def test_quiet_is_silent_only_where_no_file_is_left_out(
    mine: Any, capsys: pytest.CaptureFixture[str], quiet: bool
) -> None:
    make_display(False, quiet).joined(mine(["a.mp4"], ["a,x,val", "gone,x,val"]).report)
    assert ("gone" in capsys.readouterr().err) == (not quiet)
    make_display(False, quiet).joined(mine(["b.mp4"], ["a,x,val"]).report)
    assert "left out: b.mp4" in capsys.readouterr().err


def test_names_that_would_reach_the_terminal_are_escaped(mine: Any) -> None:
    lines = list(mine(["a.mp4", "\x1b[2J.mp4"], ["a,x,val"]).report.lines())
    assert lines[1].endswith(": \\x1b[2J.mp4")


def test_the_csv_has_every_file_and_every_annotation_once(mine: Any) -> None:
    files = ["a.mp4", "a.avi", 'q"u,o.mp4', "c.mp4"]
    report = mine(files, ["a,x,val", "b,x,val", "b,x,val", "c,,test"]).report
    rows = list(csv.DictReader(io.StringIO(report.to_csv().decode())))
    found = {(r["status"], r["path"], r["id"], r["where"]) for r in rows}
    assert found == {
        ("matched", "a.avi", "a", "l.csv, line 2"),
        ("file-missing", "", "b", "l.csv, line 3"),
        ("label-missing", 'q"u,o.mp4', "", ""),
        ("unlabelled", "c.mp4", "c", "l.csv, line 5"),
        ("listed-twice", "", "b", "l.csv, line 4"),
        ("file-twice", "a.mp4", "a", "l.csv, line 2"),
    }
    assert len(rows) == len(found)


def test_ranges_of_a_listed_video_are_no_second_files(
    tmp_path: Path, meet: Callable[..., Any], touch: Callable[..., None]
) -> None:
    touch(tmp_path, ["a.mp4"])
    rows = ["path,label,start_s,end_s", "a.mp4,z,0,1", "a.mp4,z,1,2"]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    (tmp_path / "l.csv").write_text("name,label\na,x\n")
    met = meet(tmp_path / "list.csv", f"csv:{tmp_path}/l.csv")
    assert met.videos == {"a.mp4": ("train", "x")}
    assert met.counts() == {"matched": 1}


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["kinetiks:a.csv"], ("'kinetiks:a.csv'", "kinetics:train.csv", "auto, none")),
        (["auto:a.csv"], ("'auto:a.csv'",)),
        (["kinetics"], ("kinetics", "--labels kinetics:train.csv")),
        (["ssv2:"], ("ssv2", "--labels ssv2:train.json,labels.json")),
        (["csv:a.csv", "ucf101:b.txt"], ("csv and ucf101",)),
        (["none", "csv:a.csv"], ("none and csv",)),
    ],
)
def test_what_is_no_choice_of_labels(texts: list[str], told: tuple[str, ...]) -> None:
    with pytest.raises(FlowprepError) as error:
        chosen(texts)
    for part in told:
        assert part in str(error.value)


def test_a_file_may_have_a_comma_in_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a,b.csv"
    assert chosen([f"csv:{path}"]) == ("csv", (f"{tmp_path}/a", "b.csv"))
    path.touch()
    assert chosen([f"csv:{path}", "csv:c,d"]) == ("csv", (str(path), "c", "d"))
    assert chosen([]) == (None, ())
