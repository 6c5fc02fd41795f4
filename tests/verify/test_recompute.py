"""Flow that no hash shows to be wrong is found by computing it again."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forging import Change, Forged, encode_again, forge_samples

from flowprep.shard.index import load_mark
from flowprep.shard.layout import Layout
from flowprep.shard.reader import iter_samples
from flowprep.synth import Motion, render, write_video
from flowprep.verify.check import verify
from flowprep.verify.recompute import compare
from flowprep.verify.shallow import load_marks
from flowprep.verify.subjects import choose, prepare

Cli = Callable[..., Any]
ALL = 100
MOTIONS = [Motion(dx_px=1.5, dy_px=-0.5), Motion(rotate_deg=1.5), Motion(zoom=1.02)]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos of 20 frames, and a list with two ranges of the first one."""
    folder = tmp_path_factory.mktemp("recompute") / "videos"
    folder.mkdir()
    rows: list[dict[str, Any]] = []
    for number, motion in enumerate(MOTIONS):
        name = f"clip{number}.mp4"
        write_video(folder / name, render(motion, 20, 64, 96, seed=number), 25)
        rows.append({"path": name})
    rows[:1] = [{"path": "clip0.mp4", "end_s": 0.4}, {"path": "clip0.mp4", "start_s": 0.4}]
    with (folder / "list.csv").open("w") as file:
        table = csv.DictWriter(file, ["path", "label", "start_s", "end_s"])
        table.writeheader()
        table.writerows(row | {"label": "any"} for row in rows)
    return folder


def _extract(cli: Cli, videos: Path, out: Path, *options: str) -> Path:
    fixed = ["--executor", "local", "--workers", 1, "--size", 64, "--engine", "cpu"]
    made = cli("extract", "--src", videos / "list.csv", "--out", out, *fixed, *options)
    assert made.exit_code == 0, made.output
    return out


@pytest.fixture(scope="module")
def honest(videos: Path, cli: Cli) -> Path:
    return _extract(cli, videos, videos.parent / "honest")


@pytest.fixture
def dataset(honest: Path, tmp_path: Path) -> Path:
    """A copy to forge."""
    return Path(shutil.copytree(honest, tmp_path / "dataset"))


def _compared(out: Path, src: Path | str = "") -> list[Any]:
    """All samples, in this process: engines are compiled once."""
    bench, subjects = prepare(out, ALL, 0, str(src))
    return [compare(bench, subject) for subject in subjects]


def _codes(compared: list[Any]) -> dict[str, set[str]]:
    """key -> codes of its findings."""
    return {one.subject.row.key: {code for code, _ in one.problems} for one in compared}


def _shard_of(out: Path, path: str) -> tuple[str, str]:
    """(shard, key) of the sample that was made from a video."""
    marks, _ = load_marks(Layout(out))
    return next((m.shard, row.key) for m in marks for row in m.samples if row.path == path)


def test_an_honest_dataset(honest: Path) -> None:
    compared = _compared(honest)
    assert len(compared) == 4
    assert set().union(*_codes(compared).values()) == set()
    assert all(0 < one.measured.flow_epe_px < 0.1 for one in compared)
    assert all(one.measured.psnr_db > 35 for one in compared)


@pytest.mark.parametrize(
    "options",
    [
        "--flow-map int16 --flow-codec ffv1-flow16 --rgb-codec ffv1",
        *(
            pytest.param(options, marks=pytest.mark.slow)
            for options in (
                "--flow-map i3d --flow-codec jpeg-flow --rgb-codec jpeg",
                "--flow-codec ffv1-flow --rgb-codec x264-fast --bound 5",
                "--engine-param n_warps=2 --fps 10",
            )
        ),
    ],
)
def test_other_ways_to_store(options: str, videos: Path, tmp_path: Path, cli: Cli) -> None:
    compared = _compared(_extract(cli, videos, tmp_path / "out", *options.split()))
    assert set().union(*_codes(compared).values()) == set()


def _flow_of(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Changes flow [T, 2, H, W] in codes around 128."""

    def forged(sample: Forged, folder: Path) -> None:
        def codes(old: np.ndarray) -> np.ndarray:
            flow = old.reshape(len(old), 2, old.shape[1] // 2, -1).astype(np.float64) - 128
            return np.clip(np.rint(change(flow)) + 128, 1, 255).astype(np.uint8).reshape(old.shape)

        encode_again(sample, folder, "flow", codes)

    return forged


def _later(frames: np.ndarray) -> np.ndarray:
    return np.concatenate([frames[1:], frames[-1:]])


def _rgb_later(sample: Forged, folder: Path) -> None:
    encode_again(sample, folder, "rgb", _later)


def _said(**values: Any) -> Change:
    return lambda sample, folder: sample.state(**values)


def _frames_said(sample: Forged, folder: Path) -> None:
    sample.state(source_index=[index + 1 for index in sample.info["source_index"]])


def _times_said(sample: Forged, folder: Path) -> None:
    times = [time + 0.04 for time in sample.info["pts_s"]]
    sample.state(pts_s=times)
    sample.row = type(sample.row)(
        **{**sample.row.__dict__, "start_s": times[0], "end_s": times[-1]}
    )


FORGERIES: dict[str, tuple[Change, set[str]]] = {
    "longer by a tenth": (_flow_of(lambda flow: flow * 1.1), {"flow-differs"}),
    "dx is dy": (_flow_of(lambda flow: flow[:, ::-1]), {"flow-differs"}),
    "backward": (_flow_of(lambda flow: -flow), {"flow-differs"}),
    "one row lower": (_flow_of(lambda flow: np.roll(flow, 6, axis=2)), {"flow-differs"}),
    "one group is zero": (
        _flow_of(lambda flow: flow * (np.arange(len(flow)) > 15)[:, None, None, None]),
        {"flow-differs"},
    ),
    "frames are later": (_rgb_later, {"rgb-differs"}),
    "other frames are named": (_frames_said, {"source-index"}),
    "other times are named": (_times_said, {"source-index"}),
    "another engine is named": (_said(engine="reference"), {"made-otherwise"}),
    "another step is named": (
        _said(flow_px_per_code=25 / 127, flow_bound_px=25.0),
        {"made-otherwise", "flow-differs"},
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_that_no_hash_shows(name: str, dataset: Path, tmp_path: Path) -> None:
    change, expected = FORGERIES[name]
    shard, key = _shard_of(dataset, "clip1.mp4")
    forge_samples(dataset, shard, {key}, change, tmp_path)
    assert verify(dataset) == []
    found = _codes(_compared(dataset))
    assert found.pop(key) == expected
    assert set().union(*found.values()) == set()


def test_a_shard_computed_with_other_parameters(
    videos: Path, dataset: Path, tmp_path: Path, cli: Cli
) -> None:
    """Whoever made it says nothing of it; --deep sees nothing either."""
    options = ["--engine-param", "n_warps=1", "--engine-param", "n_iterations=3"]
    other = _extract(cli, videos, tmp_path / "other", *options)
    shard, key = _shard_of(dataset, "clip0.mp4")
    flows = {
        sample.key: sample.members["flow.mp4"]
        for tar in other.glob("*.tar")
        for sample in iter_samples(tar)
    }

    def change(sample: Forged, folder: Path) -> None:
        sample.members["flow.mp4"] = flows[sample.row.key]

    forge_samples(dataset, shard, {key}, change, tmp_path)
    assert verify(dataset, deep=True) == []
    found = _codes(_compared(dataset))
    assert {k for k, codes in found.items() if codes} == {key}
    assert found[key] == {"flow-differs"}


def test_videos_that_are_gone_or_others(dataset: Path, videos: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(videos, moved, copy_function=shutil.copyfile)
    for path in moved.iterdir():
        os.utime(path, (1, 1))
    assert set().union(*_codes(_compared(dataset, moved)).values()) == set()
    (moved / "clip1.mp4").unlink()
    write_video(moved / "clip2.mp4", render(MOTIONS[0], 20, 64, 96, seed=9), 25)
    found = {one.subject.row.path: one for one in _compared(dataset, moved)}
    told = {path: {code for code, _ in one.problems} for path, one in found.items()}
    assert told == {
        "clip0.mp4": set(),
        "clip1.mp4": {"source-missing"},
        "clip2.mp4": {"source-changed"},
    }


def test_bytes_that_are_damaged_are_not_compared(dataset: Path) -> None:
    shard, key = _shard_of(dataset, "clip1.mp4")
    tar = dataset / f"{shard}.tar"
    row = next(r for r in load_mark(Layout(dataset).mark(shard)).samples if r.key == key)
    data = bytearray(tar.read_bytes())
    data[row.flow_offset + 100] ^= 1
    tar.write_bytes(data)
    assert _codes(_compared(dataset))[key] == {"not-compared"}


def test_the_choice_follows_the_seed(honest: Path) -> None:
    marks, _ = load_marks(Layout(honest))
    chosen = [[row.key for _, row in choose(marks, 2, seed)] for seed in (0, 0, 1, 2, 3, 4)]
    assert chosen[0] == chosen[1]
    assert len({tuple(keys) for keys in chosen}) > 2
    assert len({row.key for _, row in choose(marks, ALL, 0)}) == 4


def test_the_command_finds_it_and_repairs_it(
    dataset: Path, honest: Path, tmp_path: Path, cli: Cli
) -> None:
    shard, key = _shard_of(dataset, "clip2.mp4")
    forge_samples(dataset, shard, {key}, FORGERIES["dx is dy"][0], tmp_path)
    found = cli("verify", dataset, "--recompute", ALL, "--json")
    report = json.loads(found.stdout)
    assert found.exit_code == 1
    assert [(f["code"], f["key"]) for f in report["findings"]] == [("flow-differs", key)]
    assert report["recomputed"]["compared"] == 4
    mended = cli("verify", dataset, "--recompute", ALL, "--repair", "--executor", "local")
    assert (mended.exit_code, "4 of 4 samples" in mended.stdout) == (0, True)
    tars = sorted(path.name for path in honest.glob("*.tar"))
    assert [n for n in tars if (honest / n).read_bytes() != (dataset / n).read_bytes()] == []


DEADLY = """
import os, sys
if "spawn_main" in " ".join(sys.orig_argv):
    from flowprep.verify import recompute
    plain = recompute.source_of
    def source_of(bench, subject):
        if subject.row.path == "clip1.mp4":
            os.kill(os.getpid(), 11)
        return plain(bench, subject)
    recompute.source_of = source_of
"""


def test_a_process_that_dies_costs_one_sample(honest: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(DEADLY)
    command = [sys.executable, "-m", "flowprep", "verify", str(honest), "--recompute", "9"]
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    ended = subprocess.run(
        [*command, "--json"], capture_output=True, text=True, env=env, check=False
    )
    report = json.loads(ended.stdout)
    assert (ended.returncode, report["recomputed"]["compared"]) == (1, 3)
    found = [(f["code"], f["key"], f["message"]) for f in report["findings"]]
    _, key = _shard_of(honest, "clip1.mp4")
    assert found == [("not-compared", key, "the process that computed it died")]


def test_a_video_that_is_gone_is_told(dataset: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "empty").mkdir()
    ended = cli("verify", dataset, "--recompute", 2, "--src", tmp_path / "empty")
    assert ended.exit_code == 1
    assert "0 of 2 samples" in ended.stdout
    assert ended.stdout.count("source-missing") == 2
