"""What the user points at becomes videos: labels, splits, and one spelling for a path."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from flowprep.errors import FlowprepError
from flowprep.sources import Source, read_source
from flowprep.storage import VIDEO_SUFFIXES, list_videos


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def said(source: Source) -> dict[str, tuple[str, str]]:
    """path -> (split, label)."""
    return {v.path: (v.split, v.label) for v in source.videos}


def test_a_flat_folder_has_no_labels_and_is_train(tmp_path: Path) -> None:
    source = read_source(str(touch(tmp_path, "b.mp4", "a.avi")))
    assert said(source) == {"a.avi": ("train", ""), "b.mp4": ("train", "")}
    assert source.notes == []


def test_a_tree_of_one_level_is_labelled_by_its_folders_and_says_so(tmp_path: Path) -> None:
    source = read_source(str(touch(tmp_path, "walk/a.mp4", "walk/b.mp4", "run far/a.mp4")))
    assert said(source) == {
        "walk/a.mp4": ("train", "walk"),
        "walk/b.mp4": ("train", "walk"),
        "run far/a.mp4": ("train", "run far"),
    }
    (note,) = source.notes
    for part in ("labels", "2 classes", "run far, walk", "--labels none"):
        assert part in note


def test_labels_none_takes_them_away_and_says_nothing_of_them(tmp_path: Path) -> None:
    source = read_source(str(touch(tmp_path, "walk/a.mp4", "run/a.mp4")), labels="none")
    assert [v.label for v in source.videos] == ["", ""]
    assert source.notes == []


@pytest.mark.parametrize(
    "names",
    [
        ("a.mp4", "walk/b.mp4"),
        ("walk/x/a.mp4", "run/y/b.mp4"),
        ("walk/a.mp4", "run/b.mp4", "run/c.mp4", "stray.mp4"),
    ],
)
def test_any_other_tree_has_no_labels_and_says_why(tmp_path: Path, names: tuple[str, ...]) -> None:
    root = touch(tmp_path, *names)
    source = read_source(str(root))
    assert set(said(source).values()) == {("train", "")}
    (note,) = source.notes
    assert note.startswith("no labels: ")
    assert any(repr(name) in note for name in names if name.count("/") != 1)
    assert read_source(str(root), labels="none").notes == []


def test_a_dataset_among_folders_of_images_is_none_of_them(tmp_path: Path) -> None:
    """Such as the --out of the import itself."""
    touch(tmp_path, "walk/a/img_00000.jpg", "run/b/img_00000.jpg", "shards/_flowprep/shards/x.json")
    found = said(read_source(str(tmp_path), style="denseflow"))
    assert found == {"walk/a": ("train", "walk"), "run/b": ("train", "run")}


def test_top_folders_train_val_test_are_splits(tmp_path: Path) -> None:
    source = read_source(str(touch(tmp_path, "train/a.mp4", "train/b.mp4", "val/a.mp4")))
    assert said(source) == {
        "train/a.mp4": ("train", ""),
        "train/b.mp4": ("train", ""),
        "val/a.mp4": ("val", ""),
    }
    assert source.notes == ["splits from the top folders: train 2, val 1"]


def test_splits_of_class_trees_have_both(tmp_path: Path) -> None:
    source = read_source(str(touch(tmp_path, "train/walk/a.mp4", "test/run/b.mp4")))
    assert said(source) == {
        "train/walk/a.mp4": ("train", "walk"),
        "test/run/b.mp4": ("test", "run"),
    }
    assert len(source.notes) == 2


def test_a_folder_beside_the_splits_makes_them_ordinary_classes(tmp_path: Path) -> None:
    source = read_source(str(touch(tmp_path, "train/a.mp4", "val/a.mp4", "extra/a.mp4")))
    assert {split for split, _ in said(source).values()} == {"train"}
    assert {label for _, label in said(source).values()} == {"train", "val", "extra"}


def test_one_video_is_a_source(tmp_path: Path) -> None:
    source = read_source(str(touch(tmp_path, "a.MP4") / "a.MP4"))
    assert said(source) == {"a.MP4": ("train", "")}
    assert source.root == tmp_path


def test_one_video_that_is_a_link_keeps_its_own_name(tmp_path: Path) -> None:
    touch(tmp_path, "store/1234")
    (tmp_path / "a.mp4").symlink_to("store/1234")
    (video,) = read_source(str(tmp_path / "a.mp4")).videos
    assert (video.path, video.size_bytes, video.reason) == ("a.mp4", 1, "")


# --- listing ----------------------------------------------------------------------------------


def test_the_list_is_sorted_and_knows_every_suffix_in_any_case(tmp_path: Path) -> None:
    names = [f"{i:02d}{s.upper() if i % 2 else s}" for i, s in enumerate(sorted(VIDEO_SUFFIXES))]
    touch(tmp_path, *names, "x.txt", "mp4", ".hidden.mp4", ".git/a.mp4", "clip.mp4.part")
    assert list_videos(tmp_path) == names


def test_folders_and_files_are_sorted_as_one(tmp_path: Path) -> None:
    names = ["a/z.mp4", "a.mp4", "b/a.mp4", "a b/a.mp4", "B/a.mp4"]
    assert list_videos(touch(tmp_path, *names)) == sorted(names)


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    root = touch(tmp_path / "root", "in/a.mp4")
    touch(tmp_path / "elsewhere", "b.mp4")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "in" / "up").symlink_to(root)
    (root / "in" / "self").symlink_to("self")
    (root / "out").symlink_to("in/up/in")
    assert list_videos(root) == ["in/a.mp4", "link/b.mp4"]


def test_a_file_that_is_not_there_has_a_reason(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    (tmp_path / "gone.mp4").symlink_to("nowhere")
    (tmp_path / "circle.mp4").symlink_to("circle.mp4")
    reasons = {v.path: v.reason for v in read_source(str(tmp_path)).videos}
    assert reasons == {"a.mp4": "", "gone.mp4": "missing", "circle.mp4": "unreadable"}


def test_a_name_that_is_no_text_is_kept_in_a_form_that_can_be_stored(tmp_path: Path) -> None:
    touch(tmp_path, os.fsdecode(b"\xff.mp4"), "good.mp4")
    bad, good = sorted(read_source(str(tmp_path)).videos, key=lambda v: v.reason == "")
    assert (bad.reason, good.reason) == ("unreadable", "")
    assert "rename" in bad.message
    assert bad.path.encode("utf-8")


def test_a_label_that_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, os.fsdecode(b"\xff/a.mp4"), "b/a.mp4")
    with pytest.raises(FlowprepError, match="not UTF-8"):
        read_source(str(tmp_path))
    assert len(read_source(str(tmp_path), labels="none").videos) == 2


# --- lists ------------------------------------------------------------------------------------


def listed(folder: Path, text: str, name: str = "list.csv") -> Source:
    (folder / name).write_text(text, encoding="utf-8", newline="")
    return read_source(str(folder / name))


def test_a_csv_with_every_column(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "x/b.mp4")
    rows = ["path,label,split,start_s,end_s", "x/b.mp4,run,val,1.5,2", "a.mp4,walk,,,", ""]
    source = listed(tmp_path, "\r\n".join(rows))
    assert said(source) == {"a.mp4": ("train", "walk"), "x/b.mp4": ("val", "run")}
    assert [(v.range_start_s, v.range_end_s) for v in source.videos] == [(None, None), (1.5, 2.0)]
    assert source.notes == []
    assert source.root == tmp_path


@pytest.mark.parametrize("prefix", ["", "\ufeff"])
def test_a_byte_order_mark_and_spaces_after_commas_do_not_matter(
    tmp_path: Path, prefix: str
) -> None:
    source = listed(tmp_path, f"{prefix}path, label\na.mp4, walk\n" + '"b, c.mp4", "run, far"\n')
    assert said(source) == {"a.mp4": ("train", "walk"), "b, c.mp4": ("train", "run, far")}


def test_columns_that_are_not_used_are_named(tmp_path: Path) -> None:
    assert listed(tmp_path, "path,fold,actor\na.mp4,1,bob\n").notes == [
        "columns not used: actor, fold"
    ]


def test_two_spellings_of_a_path_are_one_video(tmp_path: Path) -> None:
    source = listed(tmp_path, "path\na/b.mp4\n./a//b.mp4\na\\b.mp4\n")
    assert [v.path for v in source.videos] == ["a/b.mp4"]


def test_a_backslash_in_the_name_of_a_file_stays(tmp_path: Path) -> None:
    touch(tmp_path, "a\\b.mp4")
    (video,) = listed(tmp_path, "path\na\\b.mp4\n").videos
    assert (video.path, video.reason) == ("a\\b.mp4", "")


def test_paths_beside_the_list_and_absolute_ones(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.mp4", "b.mp4")
    source = listed(tmp_path / "in", f"path\na.mp4\n../b.mp4\n{tmp_path}/b.mp4\n")
    assert {v.path: v.reason for v in source.videos} == {
        "a.mp4": "",
        "../b.mp4": "",
        f"{tmp_path}/b.mp4": "",
    }


def test_ranges_of_one_video_are_sorted_by_their_start(tmp_path: Path) -> None:
    text = "path,start_s,end_s\na.mp4,5,9\na.mp4,0,5\na.mp4,,\na.mp4,0,2\na.mp4,5,9\n"
    source = listed(tmp_path, text)
    ranges = [(v.range_start_s, v.range_end_s) for v in source.videos]
    assert ranges == [(None, None), (0.0, 2.0), (0.0, 5.0), (5.0, 9.0)]


def test_the_order_of_the_rows_does_not_matter(tmp_path: Path) -> None:
    rows = [f"{name}.mp4,{name}\n" for name in "cab"]
    forward = listed(tmp_path, "path,label\n" + "".join(rows)).videos
    backward = listed(tmp_path, "path,label\n" + "".join(rows[::-1])).videos
    assert forward == backward


def test_json_lines_may_hold_line_separators_and_numbers_as_labels(tmp_path: Path) -> None:
    rows = [{"path": "a\u2028b.mp4", "label": 0}, {"path": "c.mp4", "label": 12}]
    text = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    source = listed(tmp_path, text, "list.jsonl")
    assert said(source) == {"a\u2028b.mp4": ("train", "0"), "c.mp4": ("train", "12")}


def test_a_path_in_json_that_is_no_text_at_all(tmp_path: Path) -> None:
    (video,) = listed(tmp_path, '{"path": "\\ud800.mp4"}\n', "list.jsonl").videos
    assert video.reason == "unreadable"
    assert video.path.encode("utf-8")
