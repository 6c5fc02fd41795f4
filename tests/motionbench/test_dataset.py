"""What is written, how it is labelled, and the gate before anything is trained."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from flowprep.errors import FlowprepError
from pipelines.motionbench.dataset import Task, Video, all_videos, videos, write_videos
from pipelines.motionbench.motions import MOTIONS, PALETTES
from pipelines.motionbench.render import render
from pipelines.motionbench.scales import SCALES, SMALL, TINY, Scale
from pipelines.motionbench.shards import check_flow, extract, require_flow

FEW = replace(TINY, side=64, n_train=(12,), n_val=0, n_test=0)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("motiongrid") / "videos"
    assert write_videos(FEW, folder) == 12
    return folder


def test_a_file_holds_the_rendered_pixels(written: Path) -> None:
    for video in all_videos(FEW)[:3]:
        with av.open(str(written / video.path)) as file:
            frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        expected = render(video.scene(FEW), video.motion, video.palette)
        assert np.array_equal(np.stack(frames), expected)


def test_only_what_is_missing_is_rendered_again_and_alike(written: Path, tmp_path: Path) -> None:
    gone = written / "train" / "00003.mkv"
    before = gone.read_bytes()
    gone.unlink()
    assert write_videos(FEW, written) == 1
    assert gone.read_bytes() == before
    assert sorted(p.name for p in gone.parent.iterdir()) == [f"{i:05d}.mkv" for i in range(12)]


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_every_split_of_every_table_has_each_class_alike(scale: Scale) -> None:
    for space, n_classes in (("P", 12), ("C", 48)):
        for n_train in scale.n_train:
            rows = list(Task(space, n_train).rows(scale))
            assert len({path for path, _, _ in rows}) == n_train + scale.n_val + scale.n_test
            for split in ("train", "val", "test"):
                counts = Counter(label for _, label, s in rows if s == split)
                assert len(counts) == n_classes
                assert len(set(counts.values())) == 1


def test_palette_and_motion_are_independent_without_bias() -> None:
    pairs = Counter((v.palette, v.motion) for v in videos("test", 960))
    assert len(pairs) == 48
    assert set(pairs.values()) == {20}


@pytest.mark.parametrize("bias", [0.5, 0.9])
def test_the_bias_is_the_share_of_palettes_that_tell_the_motion(bias: float) -> None:
    drawn = videos("train-bias", 4800, bias)
    told = np.mean([v.palette == v.motion % len(PALETTES) for v in drawn])
    assert told == pytest.approx(bias + (1 - bias) / 4, abs=0.02)
    assert Counter(v.motion for v in drawn) == dict.fromkeys(range(len(MOTIONS)), 400)


def test_smaller_training_sets_are_parts_of_larger_ones() -> None:
    few, many = (
        {path for path, _, split in Task("C", n).rows(SMALL) if split == "train"}
        for n in SMALL.n_train
    )
    assert few < many


def test_sets_have_no_scene_in_common() -> None:
    scenes = [Video(name, 5, 0, 0).scene(FEW) for name in ("train", "val", "test", "train-bias90")]
    assert len({scene.seed for scene in scenes}) == 4


def test_a_table_reads_as_it_was_meant(tmp_path: Path) -> None:
    path = Task("C", 96, 0.9).write(TINY, tmp_path)
    assert path.name == "C-96-bias90.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["path"] == "train-bias90/00000.mkv"
    assert rows[0]["label"].split(" ", 1)[1] == "left"
    assert Counter(row["split"] for row in rows) == {"train": 96, "val": 48, "test": 48}


def test_the_gate_lets_flow_of_our_shards_pass_and_no_other(written: Path, tmp_path: Path) -> None:
    extract(written, tmp_path / "shards", "cpu")
    found = check_flow(FEW, tmp_path / "shards", all_videos(FEW))
    require_flow(found)
    assert found["median_epe_px"]["all"] < 0.25
    assert set(found["median_epe_px_of_patch"]) == set(MOTIONS)
    others = [replace(v, motion=v.motion ^ 1) for v in all_videos(FEW)]
    told = r"off by a median of .*patch \d\.\d\d px.* 0\.5 px are allowed"
    with pytest.raises(FlowprepError, match=told):
        require_flow(check_flow(FEW, tmp_path / "shards", others))
    with pytest.raises(FlowprepError, match=r"has no sample of val/00000\.mkv"):
        check_flow(FEW, tmp_path / "shards", videos("val", 1))
