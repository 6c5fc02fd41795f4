"""The shards as code that is not ours reads them."""

from __future__ import annotations

import io
import json
import re
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import webdataset as wds

from flowprep.codec.base import get_codec
from flowprep.demo import CLASSES
from flowprep.shard.index import load_index
from flowprep.shard.layout import Layout
from flowprep.shard.reader import flow_px, iter_samples, read_at
from flowprep.synth import Motion

README = Path(__file__).resolve().parents[2] / "README.md"
INNER = (..., slice(12, -12), slice(12, -12))


def tar_members(shards: Path) -> dict[str, bytes]:
    """Every member of every tar by the standard library."""
    members: dict[str, bytes] = {}
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as tar:
            for info in tar:
                file = tar.extractfile(info)
                assert file is not None
                assert info.name not in members
                members[info.name] = file.read()
    return members


def test_webdataset_sees_the_same_keys_and_bytes(motion_shards: Path) -> None:
    urls = [str(p) for p in sorted(motion_shards.glob("*.tar"))]
    seen = {}
    for sample in wds.WebDataset(urls, shardshuffle=False):
        key = sample["__key__"]
        seen |= {f"{key}.{s}": data for s, data in sample.items() if not s.startswith("__")}
    assert seen == tar_members(motion_shards)
    assert len(seen) == 4 * 10


def test_datasets_streams_the_same_keys_and_bytes(motion_shards: Path) -> None:
    datasets = pytest.importorskip("datasets")
    urls = [str(p) for p in sorted(motion_shards.glob("*.tar"))]
    stream = datasets.load_dataset(
        "webdataset", data_files={"train": urls}, split="train", streaming=True
    )
    raw = datasets.Video(decode=False)
    stream = stream.cast_column("rgb.mp4", raw).cast_column("flow.mp4", raw)
    expected = tar_members(motion_shards)
    keys = set()
    for row in stream:
        key = row["__key__"]
        keys.add(key)
        assert row["rgb.mp4"]["bytes"] == expected[f"{key}.rgb.mp4"]
        assert row["flow.mp4"]["bytes"] == expected[f"{key}.flow.mp4"]
        assert row["cls"] == int(expected[f"{key}.cls"])
        assert row["json"] == json.loads(expected[f"{key}.json"])
    assert keys == {name.split(".")[0] for name in expected}


def test_the_index_points_at_the_members(motion_shards: Path) -> None:
    members = tar_members(motion_shards)
    layout = Layout(motion_shards)
    rows = load_index(layout.index)
    assert len(rows) == 10
    for shard, row in rows:
        sample = read_at(layout.tar(shard), row)
        assert {f"{row.key}.{s}": d for s, d in sample.members.items()} == {
            name: data for name, data in members.items() if name.split(".")[0] == row.key
        }


def test_dali_index_points_at_the_members(motion_shards: Path) -> None:
    for path in sorted(motion_shards.glob("*.tar")):
        data = path.read_bytes()
        idx = Layout(motion_shards).idx(path.stem)
        header, *lines = idx.read_text(encoding="ascii").splitlines()
        assert header == f"v1.2 {len(lines)}"
        with tarfile.open(path) as tar:
            names = tar.getnames()
        listed = []
        for line in lines:
            words = line.split(" ")
            for ext, offset, size, name in zip(*[iter(words)] * 4, strict=True):
                content = data[int(offset) : int(offset) + int(size)]
                with tarfile.open(path) as tar:
                    file = tar.extractfile(name)
                    assert file is not None
                    assert file.read() == content
                assert name.endswith(f".{ext}")
                listed.append(name)
        assert listed == names


def readme_reader(shards: Path) -> list[dict[str, Any]]:
    """What the README's reader yields, run word for word on every shard."""
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in block.splitlines() if line.strip()]) <= 15
    seen: list[dict[str, Any]] = []
    for path in sorted(shards.glob("*.tar")):
        code = block.replace("shards/train-000000.tar", str(path))
        names: dict[str, Any] = {"seen": seen}
        exec(code + "\n    seen.append(dict(info=info, rgb=rgb_THW3, flow=flow_T2HW))\n", names)
    return seen


def test_the_reader_in_the_readme_gives_our_arrays(motion_shards: Path) -> None:
    theirs = {one["info"]["key"]: one for one in readme_reader(motion_shards)}
    ours = [s for p in sorted(motion_shards.glob("*.tar")) for s in iter_samples(p)]
    assert sorted(theirs) == sorted(s.key for s in ours)
    for sample in ours:
        info = sample.info
        rgb = get_codec(info.rgb_codec, ["rgb"]).read(sample.members[info.rgb_member])
        codes = get_codec(info.flow_codec, ["flow8"]).read(sample.members[info.flow_member])
        np.testing.assert_array_equal(theirs[sample.key]["rgb"], rgb)
        np.testing.assert_array_equal(theirs[sample.key]["flow"], flow_px(info, codes))


TRUTH = {
    "whole": (Motion(dx_px=2.0, dy_px=-1.0), 0.15),
    "subpixel": (Motion(dx_px=0.37, dy_px=0.81), 0.15),
    "turn": (Motion(rotate_deg=1.0), 0.3),
    "zoom": (Motion(zoom=1.015), 0.3),
}


def test_known_motion_comes_back(motion_shards: Path) -> None:
    """Quantisation and codec included, at interior pixels, by the README's reader."""
    for one in readme_reader(motion_shards):
        info, flow = one["info"], one["flow"]
        if info["label"] == "still":
            assert not flow.any()
            continue
        motion, bar_px = TRUTH[info["label"]]
        truth = motion.flow_T2HW(info["n_frames"], info["height"], info["width"])
        off = (flow - truth)[INNER]
        assert np.hypot(off[:, 0], off[:, 1]).mean() < bar_px, info["label"]


def test_labels_are_the_folders(motion_shards: Path) -> None:
    classes = (motion_shards / "_flowprep" / "classes.txt").read_text().split()
    assert classes == sorted(classes)
    for path in sorted(motion_shards.glob("*.tar")):
        for sample in wds.WebDataset(str(path), shardshuffle=False):
            info = json.loads(sample["json"])
            assert classes[int(sample["cls"])] == info["label"] == info["path"].split("/")[0]


def test_jpeg_members_open_as_zip(tmp_path: Path, shared_videos: list[Path], extract: Any) -> None:
    import cv2

    video = next(p for p in shared_videos if p.name == "arm_wrestling.mp4")
    options = ["--fps", "2", "--engine", "constant"]
    out = extract(
        video, tmp_path / "o", *options, "--rgb-codec", "jpeg", "--flow-codec", "jpeg-flow"
    )
    members = tar_members(out)
    (archive,) = [
        zipfile.ZipFile(io.BytesIO(d)) for n, d in members.items() if n.endswith("rgb.zip")
    ]
    (info,) = [json.loads(d) for n, d in members.items() if n.endswith(".json")]
    assert archive.namelist() == [f"{i:06d}.jpg" for i in range(info["n_frames"])]
    first = cv2.imdecode(np.frombuffer(archive.read("000000.jpg"), np.uint8), cv2.IMREAD_COLOR)
    assert first.shape == (info["height"], info["width"], 3)


def test_int16_flow_is_finer(tmp_path: Path, motion_shards: Path, extract: Any) -> None:
    videos = motion_shards.parent / "videos" / "turn"
    options = ["--size", "native", "--engine", "cpu", "--labels", "none"]
    out = extract(
        videos, tmp_path / "o", *options, "--flow-map", "int16", "--flow-codec", "ffv1-flow16"
    )
    for sample in [s for p in sorted(out.glob("*.tar")) for s in iter_samples(p)]:
        info = sample.info
        with av.open(io.BytesIO(sample.members[info.flow_member])) as video:
            codes = np.stack([f.to_ndarray(format="gray16le") for f in video.decode(video=0)])
        steps = (codes.astype(np.float64) - 32768) / 32
        flow = steps.reshape(len(codes), 2, info.height, info.width)
        truth = Motion(rotate_deg=1.0).flow_T2HW(info.n_frames, info.height, info.width)
        off = (flow - truth)[INNER]
        assert np.hypot(off[:, 0], off[:, 1]).mean() < 0.3
        assert (info.flow_px_per_code, info.flow_zero_code) == (1 / 32, 32768)


def test_demo_classes_differ_in_motion() -> None:
    flows = [motion.flow_T2HW(2, 64, 64) for motion in CLASSES.values()]
    for i, one in enumerate(flows):
        assert all(np.abs(one - other).mean() > 0.3 for other in flows[i + 1 :])
