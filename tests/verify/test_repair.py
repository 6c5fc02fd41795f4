"""What verify finds damaged, --repair makes again; everything else keeps its bytes and its time."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flowprep.shard.index import Mark, load_mark
from flowprep.shard.layout import Layout
from flowprep.shard.plan import load_plan, plan_bytes
from flowprep.shard.reader import iter_samples
from flowprep.synth import Motion, render, write_video

Contents = Callable[[Path], dict[str, tuple[str, int]]]
Cli = Callable[..., Any]
MARKS = "_flowprep/shards"


@pytest.fixture
def dataset(pristine: Path, tmp_path: Path) -> Path:
    """A copy to damage; it was made from the videos beside the original."""
    return Path(shutil.copytree(pristine, tmp_path / "dataset"))


@pytest.fixture
def repair(cli: Cli) -> Cli:
    """repair(dataset, ...) with one worker -> (exit code, report)."""

    def run(out: Path, *options: object) -> tuple[int, dict[str, Any]]:
        fixed = ["--repair", "--executor", "local", "--workers", 1, "--json"]
        ended = cli("verify", out, *fixed, *options)
        return ended.exit_code, json.loads(ended.stdout)

    return run


def _flip(path: Path, place: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 0x55
    path.write_bytes(data)


def _mark(out: Path, at_least: int = 2) -> Mark:
    """Of a shard with so many samples and no failure."""
    marks = [load_mark(path) for path in sorted((out / MARKS).glob("*.json"))]
    return next(m for m in marks if len(m.samples) >= at_least and not m.failures)


def _files(out: Path, name: str) -> list[Path]:
    shard = _mark(out).shard
    return [out / name.format(shard=shard)]


DAMAGES: dict[str, Callable[[Path], None]] = {
    "flip": _flip,
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "gone": Path.unlink,
}
PARTS = [
    "{shard}.tar",
    "_flowprep/shards/{shard}.json",
    "_flowprep/shards/{shard}.idx",
    "_flowprep/index.parquet",
    "_flowprep/failures.parquet",
    "_flowprep/manifest.parquet",
    "_flowprep/classes.txt",
    "_flowprep/dataset.json",
]


def _assert_only(changed: set[str], before: Any, after: Any) -> None:
    """The same bytes everywhere, and the same times but for what was damaged."""
    assert {name: sha for name, (sha, _) in after.items()} == {
        name: sha for name, (sha, _) in before.items()
    }
    assert {name for name in before if before[name] != after[name]} <= changed


@pytest.mark.parametrize(
    ("part", "names"),
    [
        *((part, list(DAMAGES)[number % 4 : number % 4 + 1]) for number, part in enumerate(PARTS)),
        *(pytest.param(part, list(DAMAGES), marks=pytest.mark.slow) for part in PARTS),
    ],
)
def test_each_damage_of_each_part(
    part: str, names: list[str], dataset: Path, contents: Contents, repair: Cli
) -> None:
    path, before = _files(dataset, part)[0], contents(dataset)
    shard = _mark(dataset).shard
    own = {f"{shard}.tar", f"{MARKS}/{shard}.json", f"{MARKS}/{shard}.idx"}
    tables = {f"_flowprep/{name}" for name in ("index.parquet", "failures.parquet", "dataset.json")}
    rebuilt = own | tables if part.endswith(".tar") else set()
    for name in names:
        DAMAGES[name](path)
        code, report = repair(dataset)
        assert (code, report["findings"]) == (0, [])
        assert report["repair"]["found"]
        _assert_only(rebuilt | {path.relative_to(dataset).as_posix()}, before, contents(dataset))


def _damage_some(out: Path, rng: random.Random) -> None:
    """One to six files, but not those that cannot be told from others.

    When all that tells of a failure is among them, it counts as a new one.
    """
    lost = ("plan.parquet", "config.toml", "removed.parquet")
    files = [p for p in sorted(out.rglob("*")) if p.is_file() and p.name not in lost]
    for path in rng.sample(files, rng.randint(1, 6)):
        damage = DAMAGES[rng.choice(sorted(DAMAGES))]
        damage(path)


def _random_damages(dataset: Path, contents: Contents, repair: Cli, seeds: range) -> None:
    before = contents(dataset)
    for seed in seeds:
        _damage_some(dataset, random.Random(seed))
        code, report = repair(dataset)
        assert report["findings"] == [], f"seed {seed}"
        failed = [failure["path"] for failure in report["repair"]["new_failures"]]
        assert (code, failed) in ((0, []), (3, ["a/broken.mp4"])), f"seed {seed}"
        after = contents(dataset)
        same = {n for n in before if before[n][0] == after.get(n, ("", 0))[0]}
        assert same == before.keys() == after.keys(), f"seed {seed}: {before.keys() - same}"


def test_many_damages_at_once(dataset: Path, contents: Contents, repair: Cli) -> None:
    _random_damages(dataset, contents, repair, range(2))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_damages_at_once_many_times(dataset: Path, contents: Contents, repair: Cli) -> None:
    _random_damages(dataset, contents, repair, range(100, 200))


def test_no_mark_is_left(dataset: Path, contents: Contents, repair: Cli) -> None:
    """The index, the failures and the tars tell all of them."""
    before = contents(dataset)
    shutil.rmtree(dataset / MARKS)
    code, report = repair(dataset)
    assert (code, report["repair"]["rebuilt"]) == (0, {})
    _assert_only({n for n in before if MARKS in n}, before, contents(dataset))


@pytest.mark.parametrize("name", ["plan.parquet", "config.toml", "removed.parquet"])
@pytest.mark.parametrize("also", ["", "dataset.json"])
def test_what_nothing_else_holds_is_told(
    name: str, also: str, dataset: Path, contents: Contents, cli: Cli
) -> None:
    for damaged in {name, also} - {""}:
        (dataset / "_flowprep" / damaged).write_bytes(b"[broken")
    before = contents(dataset)
    ended = cli("verify", dataset, "--repair")
    assert ended.exit_code == 2
    assert f"{name} is damaged" in ended.stderr
    assert contents(dataset) == before


def test_a_plan_that_leads_out_of_the_dataset(dataset: Path, contents: Contents, cli: Cli) -> None:
    """A dataset of others may hold anything."""
    plan = dataset / "_flowprep" / "plan.parquet"
    rows = [replace(row, shard=f"../../{row.shard}") for row in load_plan(plan)]
    plan.write_bytes(plan_bytes(rows))
    (dataset / "_flowprep" / "dataset.json").unlink()
    before = contents(dataset.parent)
    ended = cli("verify", dataset, "--repair", "--executor", "local")
    assert (ended.exit_code, "no shard is called" in ended.stderr) == (2, True)
    assert contents(dataset.parent) == before


def _damaged_sample(out: Path, in_header: bool = False) -> tuple[Mark, str]:
    """One sample of a shard with several is hit: (the mark as it was, its key).

    With a damaged header, no reader of tars gets to the samples behind it.
    """
    mark = _mark(out, at_least=3)
    row = mark.samples[1]
    tar = out / f"{mark.shard}.tar"
    data = bytearray(tar.read_bytes())
    data[row.sample_offset + 150 if in_header else row.rgb_offset + row.rgb_size // 2] ^= 0x55
    tar.write_bytes(data)
    return mark, row.key


@pytest.fixture
def moved(pristine: Path, tmp_path: Path) -> Path:
    """A copy of the videos, with other times."""
    return Path(shutil.copytree(pristine.parent / "videos", tmp_path / "m", copy_function=_copy))


def _copy(source: str, target: str) -> None:
    shutil.copyfile(source, target)
    os.utime(target, (1, 1))


def test_videos_that_were_moved(
    dataset: Path, moved: Path, contents: Contents, repair: Cli
) -> None:
    before = contents(dataset)
    _damaged_sample(dataset)
    assert repair(dataset, "--src", moved)[0] == 0
    assert {n: sha for n, (sha, _) in contents(dataset).items()} == {
        n: sha for n, (sha, _) in before.items()
    }


@pytest.mark.parametrize("in_header", [False, True])
def test_healthy_samples_survive_the_loss_of_their_videos(
    in_header: bool, dataset: Path, moved: Path, contents: Contents, repair: Cli
) -> None:
    before = contents(dataset)
    mark, key = _damaged_sample(dataset, in_header)
    needed = next(row.path for row in mark.samples if row.key == key)
    for path in moved.rglob("*.mp4"):
        if path.relative_to(moved).as_posix() != needed:
            path.unlink()
    code, report = repair(dataset, *["--deep"] * in_header, "--src", moved)
    assert (code, report["repair"]["rebuilt"]) == (0, {mark.shard: {"copied": 2, "made": 1}})
    assert contents(dataset).keys() == before.keys()
    assert all(contents(dataset)[n][0] == before[n][0] for n in before)


@pytest.mark.parametrize("loss", ["missing", "changed"])
def test_a_sample_that_cannot_be_made_again_becomes_a_failure(
    loss: str, dataset: Path, moved: Path, contents: Contents, repair: Cli, cli: Cli
) -> None:
    before = contents(dataset)
    mark, key = _damaged_sample(dataset)
    old = {s.key: s for s in iter_samples(dataset / f"{mark.shard}.tar")}
    video = moved / next(row.path for row in mark.samples if row.key == key)
    video.unlink()
    if loss == "changed":
        write_video(video, render(Motion(dx_px=3), 24, 48, 64, seed=77), 25)
    code, report = repair(dataset, "--src", moved)
    assert (code, report["findings"]) == (3, [])
    assert [(f["key"], f["reason"]) for f in report["repair"]["new_failures"]] == [(key, loss)]
    new = {s.key: s for s in iter_samples(dataset / f"{mark.shard}.tar")}
    assert new == {k: s for k, s in old.items() if k != key}
    table = pq.read_table(dataset / "_flowprep" / "failures.parquet").to_pylist()
    assert (key, loss) in {(row["key"], row["reason"]) for row in table}
    after = contents(dataset)
    others = {n for n in before if n.endswith(".tar") and not n.startswith(mark.shard)}
    assert {n: after[n] for n in others} == {n: before[n] for n in others}
    assert cli("verify", dataset, "--deep").exit_code == 0
    assert repair(dataset, "--src", moved)[0] == 0, "told once"


def test_another_video_of_the_same_size_and_frames_is_told(
    tmp_path: Path, cli: Cli, repair: Cli
) -> None:
    """Nothing but the sample itself shows that it came from other pictures."""
    src, out = tmp_path / "src", tmp_path / "out"
    src.mkdir()
    _raw_video(src / "one.avi", seed=1)
    options = "--executor local --engine constant --size 48"
    assert cli("extract", "--src", src, "--out", out, *options.split()).exit_code == 0
    _raw_video(src / "one.avi", seed=2)
    os.utime(src / "one.avi", (1, 1))
    _flip(out / "train-000000.tar")
    code, report = repair(out)
    key = load_mark(out / MARKS / "train-000000.json").samples[0].key
    assert (code, report["findings"], report["repair"]["other_bytes"]) == (0, [], [key])


def _raw_video(path: Path, seed: int) -> None:
    frames = render(Motion(dx_px=1), 6, 48, 64, seed=seed)
    write_video(path, frames, 25, codec="rawvideo")


def test_a_failure_of_a_repair_can_be_tried_again(
    dataset: Path, moved: Path, repair: Cli, cli: Cli, contents: Contents
) -> None:
    before = contents(dataset)
    mark, key = _damaged_sample(dataset)
    lost = next(row.path for row in mark.samples if row.key == key)
    (moved / lost).rename(moved / "away")
    assert repair(dataset, "--src", moved)[0] == 3
    (moved / "away").rename(moved / lost)
    options = "--executor local --engine constant --size 48 --clip-frames 6 --max-failures 1"
    again = cli("extract", "--src", moved, "--out", dataset, "--retry-failed", *options.split())
    assert again.exit_code == 0, again.output
    after = contents(dataset)
    assert {n for n in before if after[n][0] != before[n][0]} <= {
        "_flowprep/manifest.parquet",  # the times of the copies
        "_flowprep/dataset.json",
    }


def test_samples_that_nothing_vouches_for_are_not_given_up(
    dataset: Path, moved: Path, contents: Contents, repair: Cli
) -> None:
    """Neither mark nor index are left to say what is healthy, and a video is gone."""
    mark = _mark(dataset)
    tar = f"{mark.shard}.tar"
    before = contents(dataset)[tar]
    (dataset / MARKS / f"{mark.shard}.json").unlink()
    (dataset / "_flowprep" / "index.parquet").unlink()
    (moved / mark.samples[0].path).unlink()
    code, report = repair(dataset, "--src", moved)
    assert (code, list(report["repair"]["left"])) == (1, [mark.shard])
    assert contents(dataset)[tar] == before


def test_the_place_of_the_videos_is_gone(
    dataset: Path, tmp_path: Path, contents: Contents, cli: Cli
) -> None:
    _damaged_sample(dataset)
    before = contents(dataset)
    ended = cli("verify", dataset, "--repair", "--src", tmp_path / "nowhere")
    assert (ended.exit_code, "--src" in ended.stderr) == (2, True)
    assert contents(dataset) == before


def test_files_of_others_are_left(dataset: Path, contents: Contents, repair: Cli) -> None:
    before = contents(dataset)
    mine = [dataset / "notes.txt", dataset / MARKS / "train-00000z.json", dataset / "extra.tar"]
    for path in mine:
        shutil.copyfile(dataset / MARKS / "train-000000.json", path)
    _flip(dataset / f"{_mark(dataset).shard}.tar")
    code, report = repair(dataset)
    left = {path.relative_to(dataset).as_posix() for path in mine}
    assert code == 1
    assert {f["file"] for f in report["findings"]} == left
    after = contents(dataset)
    assert after.keys() == before.keys() | left
    assert all(after[name][0] == before[name][0] for name in before)


@pytest.mark.parametrize("part", ["{shard}.tar", "_flowprep/shards/{shard}.json"])
def test_something_else_in_place_of_a_file(part: str, dataset: Path, cli: Cli) -> None:
    path = _files(dataset, part)[0]
    path.unlink()
    path.mkdir()
    (path / "mine").touch()
    ended = cli("verify", dataset, "--repair", "--executor", "local")
    assert (ended.exit_code, "a folder" in ended.stderr) == (2, True)
    assert (path / "mine").exists()


def test_an_interrupted_extraction_is_finished(
    dataset: Path, contents: Contents, repair: Cli
) -> None:
    before, layout = contents(dataset), Layout(dataset)
    shard = _mark(dataset).shard
    for path in (layout.dataset, layout.index, layout.failures, layout.mark(shard)):
        path.unlink()
    assert repair(dataset)[0] in (0, 3)
    assert all(contents(dataset)[name][0] == before[name][0] for name in before)


def test_extract_after_an_interrupted_repair_gives_nothing_up(
    dataset: Path, moved: Path, repair: Cli, cli: Cli, contents: Contents
) -> None:
    """It does not look into tars, and leaves marks that say what in them is healthy."""
    before = contents(dataset)
    mark, _ = _damaged_sample(dataset)
    (dataset / "_flowprep" / "dataset.json").unlink()
    options = "--executor local --engine constant --size 48 --clip-frames 6 --max-failures 1"
    assert cli("extract", "--src", moved, "--out", dataset, *options.split()).exit_code == 0
    for path in moved.rglob("*.mp4"):
        if path.relative_to(moved).as_posix() != mark.samples[1].path:
            path.unlink()
    assert repair(dataset, "--src", moved)[0] == 0
    after = contents(dataset)
    assert {n for n in before if after[n][0] != before[n][0]} <= {
        "_flowprep/manifest.parquet",  # the times of the copies
        "_flowprep/dataset.json",
    }


def test_a_text_for_people(dataset: Path, cli: Cli) -> None:
    mark, key = _damaged_sample(dataset)
    (dataset / "notes.txt").touch()
    ended = cli("verify", dataset, "--repair", "--executor", "local")
    assert ended.exit_code == 1
    told = ["tar-damaged", key, f"{mark.shard}: made again, 2 samples copied", "1 findings"]
    told.append("1 files are no part of this dataset and were left: notes.txt")
    assert [text for text in told if text not in ended.stdout] == []


@pytest.mark.parametrize("option", ["--src", "--seed", "--workers"])
def test_an_option_that_would_do_nothing_is_refused(option: str, dataset: Path, cli: Cli) -> None:
    ended = cli("verify", dataset, option, 1)
    assert (ended.exit_code, f"{option} does nothing without --re" in ended.stderr) == (2, True)
