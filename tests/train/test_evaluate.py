"""Evaluation against a reading of the shards by hand, and what its report holds."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
import webdataset as wds
from torch import nn

from flowprep.errors import FlowprepError
from train.checkpoint import Meta, load_meta, save_weights
from train.common import Place
from train.config import Data, Source
from train.data.splits import SPLITS
from train.data.windows import WindowConfig
from train.evaluate import EvaluateConfig, evaluate, main, other_parting, pick_split
from train.models.base import ModelConfig, VideoModel, build
from train.setup import make_table, make_window

CLASSES = ["down", "left", "right"]
WINDOW = WindowConfig(frames=8, crop=48)


def net_of(channels: int) -> VideoModel:
    torch.manual_seed(channels)
    net = build(ModelConfig(in_channels=channels, n_classes=3, width=0.1, bn_momentum=1.0))
    net(torch.rand(2, channels, 8, 48, 48) - 0.5)  # batch norm that is not neutral
    nn.init.normal_(net.classifier.conv.weight, std=3.0)
    return net.eval()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Untrained networks, saved as a run saves them."""
    folder = tmp_path_factory.mktemp("runs")
    for modality, channels in (("rgb", 3), ("flow", 2)):
        net = net_of(channels)
        meta = Meta(
            model=ModelConfig(in_channels=channels, n_classes=3, width=0.1, bn_momentum=1.0),
            modality=modality,
            classes=CLASSES,
            window=WINDOW,
            extraction={},
            fingerprint="",
            config={},
            step=0,
            epoch=0.0,
            val_top1=0.0,
            commit="",
            versions={},
        )
        save_weights(folder / modality / "best.safetensors", net, meta)
    return {name: str(folder / name) for name in ("rgb", "flow")}


def images(data: bytes, pixels: str) -> list[np.ndarray]:
    with av.open(io.BytesIO(data)) as video:
        return [frame.to_ndarray(format=pixels) for frame in video.decode(video=0)]


def middle(clip_CTHW: np.ndarray) -> torch.Tensor:
    """8 frames and 48 x 48 pixels from the middle of 20 frames of 64 x 88."""
    return torch.tensor(clip_CTHW[:, 6:14, 8:56, 20:68])[None].float()


def by_hand(shards: Path) -> dict[str, dict[str, np.ndarray]]:
    """Mean logits of each video's clips: path -> modality -> [K]."""
    nets = {"rgb": net_of(3), "flow": net_of(2)}
    found: dict[str, dict[str, list[np.ndarray]]] = {}
    for tar in sorted(shards.glob("*.tar")):
        for sample in wds.WebDataset(str(tar), shardshuffle=False):
            info = json.loads(sample["json"])
            yuv = images(sample["rgb.mp4"], "yuv420p")
            rgb = np.stack([cv2.cvtColor(image, cv2.COLOR_YUV2RGB_I420) for image in yuv])
            codes = np.stack(images(sample["flow.mp4"], "gray")).reshape(-1, 2, 64, 88)
            flow = (codes.astype(np.float32) - info["flow_zero_code"]) * info["flow_px_per_code"]
            clips = {
                "rgb": rgb.transpose(3, 0, 1, 2) / 127.5 - 1,
                "flow": flow.clip(-20, 20).transpose(1, 0, 2, 3) / 20,
            }
            for name, clip in clips.items():
                with torch.no_grad():
                    logits = nets[name](middle(clip))[0].numpy()
                found.setdefault(info["path"], {}).setdefault(name, []).append(logits)
    return {
        path: {name: np.mean(logits, 0) for name, logits in both.items()}
        for path, both in found.items()
    }


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_scores_are_those_of_a_reading_by_hand(
    runs: dict[str, str], labelled: Path, here: Place
) -> None:
    config = EvaluateConfig(
        run=runs["rgb"], also=(runs["flow"],), clips=1, crops=1, data=Data(shards=str(labelled))
    )
    table = make_table(config.data)
    rgb, flow, both = evaluate(config, table, here)
    expected = by_hand(labelled)
    paths = [table.videos[int(v)].as_py() for v in rgb.scores.video_V]
    assert sorted(paths) == sorted(expected)
    assert [CLASSES[i] for i in rgb.scores.label_V] == [path.split("/")[0] for path in paths]
    for judged, names in ((rgb, ["rgb"]), (flow, ["flow"]), (both, ["rgb", "flow"])):
        logits = np.stack([np.mean([expected[p][n] for n in names], 0) for p in paths])
        np.testing.assert_allclose(judged.scores.logits_VK, logits, rtol=1e-3, atol=1e-3)
        assert np.ptp(logits, axis=0).max() > 0.05  # else anything would agree
    assert both.name == f"{runs['rgb']} + {runs['flow']}"


def test_the_command_writes_what_it_tells(
    runs: dict[str, str],
    labelled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--run", runs["rgb"], "--also", runs["flow"], "--shards", str(labelled)]
    options = ["--out", str(tmp_path), "--clips", "2", "--on", "val", "--engine", "cpu"]
    monkeypatch.setattr("sys.argv", ["evaluate", *arguments, *options])
    main()
    report = json.loads((tmp_path / "evaluation.json").read_text())
    rgb, flow, both = report["runs"].values()
    assert report["split"] == "val"
    assert rgb["videos"] == both["videos"] == 1
    assert set(rgb["per_class_top1"]) == set(CLASSES)
    assert sum(share is not None for share in rgb["per_class_top1"].values()) == 1
    for part in ("parameters", "macs"):
        assert both["cost"][part] == rgb["cost"][part] + flow["cost"][part]
    assert rgb["cost"]["with_tvl1_s"] == rgb["cost"]["networks_s"]
    tvl1_s = flow["cost"]["with_tvl1_s"] - flow["cost"]["networks_s"]
    assert tvl1_s > 0
    assert both["cost"]["with_tvl1_s"] - both["cost"]["networks_s"] == pytest.approx(tvl1_s)
    assert len(list(tmp_path.glob("confusion-*.png"))) == 3
    told = capsys.readouterr().out
    assert "TV-L1 by cpu on one thread, 8 flows of 88x64" in told
    assert f"{both['top1']:.1%}" in told


def test_the_split_is_the_one_asked_for_or_the_last_there_is(labelled: Path) -> None:
    table = make_table(Data(shards=str(labelled)))
    assert pick_split("auto", table) == "val"
    assert pick_split("train", table) == "train"
    with pytest.raises(FlowprepError, match="no sample is in the split test"):
        pick_split("test", table)
    assert set(SPLITS) == {"train", "val", "test"}


def test_a_run_whose_videos_were_parted_otherwise_is_told(runs: dict[str, str]) -> None:
    """What it was trained on may be what is judged, and nothing else would say so."""
    meta = load_meta(Path(runs["rgb"]) / "best.safetensors")
    theirs = {"labels": "", "split": 2, "val_share": 0.05}
    meta = replace(meta, config={"data": theirs})
    assert other_parting(meta, Source(), "val") == "--split 2, --val-share 0.05"
    assert other_parting(meta, Source(), "test") == "--split 2"
    assert other_parting(meta, Source(split=2, val_share=0.05), "val") == ""
    assert other_parting(meta, Source(split=2, labels="t.csv"), "test") == "--labels none"


def test_a_run_of_other_classes_is_refused(
    runs: dict[str, str], labelled: Path, here: Place
) -> None:
    config = EvaluateConfig(run=runs["rgb"], data=Data(shards=str(labelled)))
    table = make_table(config.data, ["left", "down", "right"])
    with pytest.raises(FlowprepError, match="or others in another order"):
        evaluate(config, table, here)


@pytest.mark.parametrize(
    ("given", "frames", "crop"),
    [
        ({}, 16, 64),  # of clips of 20 frames of 64 x 88 px
        ({"stride": 3}, 4, 64),
        ({"frames": 64, "crop": 40}, 64, 40),
        ({"resize": 128}, 16, 128),
        ({"resize": 300}, 16, 224),
        ({"resize": 50}, 16, 32),
    ],
)
def test_windows_are_as_large_as_the_clips_allow(
    given: dict, frames: int, crop: int, labelled: Path
) -> None:
    data = Data(shards=str(labelled), **given)
    window = make_window(data, make_table(data))
    assert (window.frames, window.crop) == (frames, crop)


def test_a_crop_that_no_picture_holds_is_refused(labelled: Path) -> None:
    data = Data(shards=str(labelled), crop=65)
    with pytest.raises(FlowprepError, match="--crop 65 is larger than the smallest picture, 64 px"):
        make_window(data, make_table(data))
