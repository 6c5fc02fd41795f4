"""`flowprep extract --labels ...` on real videos: what ends up in the shards, and what stays."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from flowprep.synth import Motion, render, write_video

MakeVideo = Callable[..., Path]
Cli = Callable[..., Result]
FAST = ("--engine", "constant", "--executor", "local", "--workers", 1, "--size", "native")
TEMPLATE = "Moving [something] up"


@dataclass(frozen=True)
class Case:
    """Annotation files, the option, and what each video shall be: path -> (split, index, class)."""

    files: dict[str, str]
    option: str
    videos: dict[str, tuple[str, int, str]]
    classes: list[str]


CASES = {
    "kinetics": Case(
        {
            "t.csv": "label,youtube_id,time_start,time_end,split\n"
            '"air drumming",-_aaaaaaaaa,3,13,train\nabseiling,__aaaaaaaaa,0,10,validate\n'
            "zumba,ccccccccccc,0,10,train\n"
        },
        "kinetics:t.csv",
        {
            "air_drumming/-_aaaaaaaaa_000003_000013.mp4": ("train", 1, "air drumming"),
            "abseiling/__aaaaaaaaa.mkv": ("val", 0, "abseiling"),
        },
        ["abseiling", "air drumming", "zumba"],
    ),
    "ucf101": Case(
        {
            "classInd.txt": "1 Hammering\r\n2 HammerThrow\r\n3 HandstandPushups\r\n",
            "trainlist01.txt": "HandstandPushups/v_HandStandPushups_g08_c01.avi 3\r\n",
            "testlist01.txt": "HammerThrow/v_HammerThrow_g01_c01.avi\r\n",
        },
        "ucf101:.",
        {
            "HandstandPushups/v_HandstandPushups_g08_c01.avi": ("train", 2, "HandstandPushups"),
            "HammerThrow/v_HammerThrow_g01_c01.avi": ("test", 1, "HammerThrow"),
        },
        ["Hammering", "HammerThrow", "HandstandPushups"],
    ),
    "hmdb51": Case(
        {
            "ride_bike_test_split2.txt": "#437_[How]_To!_(1)_&_ride_bike_f_0.avi 1 \n",
            "sword_test_split2.txt": "a_sword_0.avi 0 \nb_sword_0.avi 2 \n",
        },
        "hmdb51:.#2",
        {
            "ride_bike/#437_[How]_To!_(1)_&_ride_bike_f_0.avi": ("train", 0, "ride_bike"),
            "sword/a_sword_0.avi": ("unused", 1, "sword"),
        },
        ["ride_bike", "sword"],
    ),
    "ssv2": Case(
        {
            "labels.json": json.dumps({"Zipping something": "0", "Moving something up": "1"}),
            "train.json": json.dumps([{"id": "78687", "template": TEMPLATE}]),
            "validation.json": json.dumps([{"id": "42", "template": "Zipping [something]"}]),
        },
        "ssv2:train.json,validation.json",
        {
            "78687.webm": ("train", 1, "Moving something up"),
            "42.webm": ("val", 0, "Zipping something"),
        },
        ["Zipping something", "Moving something up"],
    ),
    "csv": Case(
        {"mine.csv": 'path,label,split\nx/a.mp4,"run, far",test\nx/b.mp4,walk,\n'},
        "csv:mine.csv",
        {"x/a.mp4": ("test", 0, "run, far"), "x/b.mp4": ("train", 1, "walk")},
        ["run, far", "walk"],
    ),
}


def lay_out(case: Case, folder: Path, make_video: MakeVideo) -> None:
    (folder / "labels").mkdir(parents=True)
    for name, text in case.files.items():
        (folder / "labels" / name).write_text(text, encoding="utf-8", newline="")
    for path in [*case.videos, "strange/one.mp4"]:
        target = folder / "videos" / path
        if target.suffix == ".webm":
            target.parent.mkdir(parents=True, exist_ok=True)
            frames = render(Motion(dx_px=1.5), 4, 48, 64)
            write_video(target, frames, 12, codec="libvpx-vp9")
        else:
            make_video(target, n_frames=4)


def samples(out: Path) -> dict[str, tuple[str, int, str]]:
    """What the tars say themselves: path -> (split, index in .cls, label)."""
    found = {}
    for tar in sorted(out.glob("*.tar")):
        with tarfile.open(tar) as archive:
            members = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
        for name in [n for n in members if n.endswith(".json")]:
            info = json.loads(members[name])
            index = int(members[name.replace(".json", ".cls")])
            assert (info["split"], info["label_index"]) == (tar.name.split("-")[0], index)
            found[info["path"]] = (info["split"], index, info["label"])
    return found


def classes(out: Path) -> list[str]:
    return (out / "_flowprep" / "classes.txt").read_text(encoding="utf-8").splitlines()


@pytest.fixture
def run(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Any:
    """run(folder, option, *more): extract folder/videos to folder/out, from folder/labels."""

    def extract(folder: Path, option: str, *more: object) -> Result:
        monkeypatch.chdir(folder / "labels")
        places = ("--src", folder / "videos", "--out", folder / "out")
        return cli("extract", *places, *FAST, "--labels", option, *more)

    return extract


@pytest.mark.parametrize("kind", CASES)
def test_labels_splits_and_indices_reach_the_shards(
    kind: str, run: Any, cli: Cli, tmp_path: Path, make_video: MakeVideo
) -> None:
    case = CASES[kind]
    lay_out(case, tmp_path, make_video)
    result = run(tmp_path, case.option)
    assert result.exit_code == 0, result.output
    assert "1 files without an annotation, left out: strange/one.mp4" in result.stderr
    assert samples(tmp_path / "out") == case.videos
    assert classes(tmp_path / "out") == case.classes
    assert cli("verify", tmp_path / "out", "--deep").exit_code == 0


@pytest.mark.slow
def test_ray_makes_the_same_bytes(run: Any, tmp_path: Path, make_video: MakeVideo) -> None:
    lay_out(CASES["kinetics"], tmp_path, make_video)
    assert run(tmp_path, "kinetics:t.csv").exit_code == 0
    out = tmp_path / "out"
    (out / "_flowprep" / "runs.jsonl").unlink()
    local = {p.name: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    shutil.rmtree(out)
    result = run(tmp_path, "kinetics:t.csv", "--executor", "ray")
    assert result.exit_code == 0, result.output
    (out / "_flowprep" / "runs.jsonl").unlink()
    made = {p.name: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert made == local


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, make_video: MakeVideo, cli: Cli) -> Path:
    """A dataset of UCF101 of which one video is broken."""
    folder = tmp_path_factory.mktemp("ucf101")
    lay_out(CASES["ucf101"], folder, make_video)
    (folder / "videos" / "HammerThrow" / "v_HammerThrow_g01_c01.avi").write_bytes(b"no video")
    places = ("--src", folder / "videos", "--out", folder / "out", "--max-failures", 1)
    result = cli("extract", *places, *FAST, "--labels", f"ucf101:{folder}/labels")
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def dataset(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def test_a_dry_run_tells_the_join_and_writes_only_the_report_asked_for(
    dataset: Path, run: Any, tmp_path: Path
) -> None:
    shutil.rmtree(dataset / "out")
    report = tmp_path / "join.csv"
    result = run(dataset, "ucf101:.", "--dry-run", "--log-json", "--join-report", report)
    assert result.exit_code == 0
    told = [json.loads(line) for line in result.stdout.splitlines()]
    (join,) = [line for line in told if line["event"] == "join"]
    counts = {name: join[name]["count"] for name in join if isinstance(join[name], dict)}
    assert {n: c for n, c in counts.items() if c} == {"matched": 2, "label_missing": 1}
    assert join["label_missing"]["first"][0]["path"] == "strange/one.mp4"
    assert not (dataset / "out").exists()
    assert report.read_text().count("\n") == 1 + 3


def test_a_rerun_may_have_the_annotation_files_elsewhere_but_needs_them(
    dataset: Path, run: Any, cli: Cli, tmp_path: Path
) -> None:
    elsewhere = shutil.copytree(dataset / "labels", tmp_path / "elsewhere")
    before = {path: path.read_bytes() for path in (dataset / "out").rglob("*") if path.is_file()}
    assert run(dataset, f"ucf101:{elsewhere}", "--max-failures", 1).exit_code == 0
    assert {path: path.read_bytes() for path in before} == before
    places = ("--src", dataset / "videos", "--out", dataset / "out", *FAST)
    refused = cli("extract", *places)
    assert refused.exit_code == 2
    assert "--labels ucf101 -> auto" in refused.stderr
    config = dataset / "out" / "_flowprep" / "config.toml"
    refused = cli("extract", *places, "--recipe", config)
    assert refused.exit_code == 2
    assert "--labels ucf101:splits/trainlist01.txt" in refused.stderr


def test_a_mended_video_is_retried_with_its_label(
    dataset: Path, run: Any, make_video: MakeVideo
) -> None:
    path = dataset / "videos" / "HammerThrow" / "v_HammerThrow_g01_c01.avi"
    assert len(samples(dataset / "out")) == 1
    make_video(path, n_frames=4)
    assert run(dataset, "ucf101:.", "--retry-failed").exit_code == 0
    assert samples(dataset / "out") == CASES["ucf101"].videos


def test_repair_and_recompute_need_no_annotation_files(
    dataset: Path, cli: Cli, make_video: MakeVideo
) -> None:
    """Also where the manifest and the classes are gone: the class without a video comes back."""
    before = {p: p.read_bytes() for p in sorted((dataset / "out").rglob("*")) if p.is_file()}
    shutil.rmtree(dataset / "labels")
    internal = dataset / "out" / "_flowprep"
    for name in ("manifest.parquet", "classes.txt", "index.parquet"):
        (internal / name).unlink()
    tar = next((dataset / "out").glob("train-*.tar"))
    tar.write_bytes(tar.read_bytes()[:-2000])
    options = ("--executor", "local", "--workers", 1, "--src", dataset / "videos")
    repaired = cli("verify", dataset / "out", "--repair", *options)
    assert repaired.exit_code == 0, repaired.output
    assert {p: p.read_bytes() for p in before} == before
    again = cli("verify", dataset / "out", "--recompute", 1, "--src", dataset / "videos")
    assert again.exit_code == 0, again.output


def test_the_other_split_may_come_later_by_itself(
    dataset: Path, run: Any, cli: Cli, make_video: MakeVideo
) -> None:
    """Its own files are enough: what is there stays, and can be repaired and computed again."""
    make_video(dataset / "videos" / "HammerThrow" / "v_HammerThrow_g01_c01.avi", n_frames=4)
    shutil.rmtree(dataset / "out")
    first = run(dataset, "ucf101:trainlist01.txt")
    assert "2 files without an annotation, left out" in first.stderr
    whole = {p: p.read_bytes() for p in (dataset / "out").glob("*.tar")}
    second = run(dataset, "ucf101:testlist01.txt")
    assert second.exit_code == 0, second.output
    assert "1 files without an annotation, which stay" in second.stderr
    assert samples(dataset / "out") == CASES["ucf101"].videos
    assert {p: p.read_bytes() for p in whole} == whole
    (tar,) = whole
    tar.write_bytes(tar.read_bytes()[:-3000])
    options = ("--executor", "local", "--workers", 1)
    assert cli("verify", dataset / "out", "--repair", *options).exit_code == 0
    assert tar.read_bytes() == whole[tar]


def test_of_two_files_the_one_that_is_planned_is_taken(
    dataset: Path, run: Any, make_video: MakeVideo
) -> None:
    made = samples(dataset / "out")
    make_video(dataset / "videos" / "A" / "v_HandStandPushups_g08_c01.avi", n_frames=4)
    result = run(dataset, "ucf101:.", "--max-failures", 1)
    assert result.exit_code == 0
    assert "1 further files of a video that has one, left out: A/v_HandStand" in result.stderr
    assert samples(dataset / "out") == made


def test_finished_clips_keep_their_label_and_that_is_told(
    dataset: Path, run: Any, make_video: MakeVideo
) -> None:
    made = samples(dataset / "out")
    text = "HandstandPushups/v_HandStandPushups_g08_c01.avi\n"
    (dataset / "labels" / "trainlist01.txt").write_text("HammerThrow/v_HammerThrow_g02_c01.avi 2\n")
    (dataset / "labels" / "testlist01.txt").write_text(text)
    result = run(dataset, "ucf101:.", "--max-failures", 1)
    assert result.exit_code == 0
    assert "1 finished clips keep the label and split" in result.stderr
    assert "is train/HandstandPushups, now it would be test/HandstandPushups" in result.stderr
    assert samples(dataset / "out") == made


def test_contradictions_are_refused_after_the_report_is_written(
    dataset: Path, run: Any, tmp_path: Path
) -> None:
    shutil.rmtree(dataset / "out")
    listed = "HandstandPushups/v_HandStandPushups_g08_c01.avi\n"
    (dataset / "labels" / "testlist01.txt").write_text(listed)
    result = run(dataset, "ucf101:.", "--quiet", "--join-report", tmp_path / "j.csv")
    assert result.exit_code == 2
    assert "contradict one another" in result.stderr
    assert "contradiction,," in (tmp_path / "j.csv").read_text()
    assert not (dataset / "out").exists()


def test_a_join_report_of_nothing_is_refused(dataset: Path, cli: Cli, tmp_path: Path) -> None:
    places = ("--src", dataset / "videos", "--out", tmp_path / "new", *FAST)
    result = cli("extract", *places, "--join-report", tmp_path / "j.csv")
    assert result.exit_code == 2
    assert "--join-report has nothing to report with --labels auto" in result.stderr
