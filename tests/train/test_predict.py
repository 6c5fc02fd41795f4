"""Predict sees the frames that extract stores, in windows that cover the video."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from flowprep.config import Settings, load_toml, settings_from
from flowprep.errors import FlowprepError
from flowprep.records import U8
from flowprep.synth import Motion, render, write_video
from train.checkpoint import Meta, load_net, save_weights
from train.common import Place, run_main
from train.config import parse
from train.data.windows import WindowConfig
from train.models.base import ModelConfig, build
from train.predict import (
    PredictConfig,
    cut_windows,
    frames_of,
    main,
    of_video,
    open_video,
    predict,
    see,
    window_starts,
)

HEIGHT, WIDTH = 80, 108
CLASSES = ["down", "left", "right"]
OPTIONS = {  # of extract: rate, size and pieces that change something
    "shrunk": ["--fps", "20", "--size", "50", "--clip-max", "1"],
    "strided": ["--fps", "native", "--stride", "2", "--size", "64", "--resize", "cv2-linear"],
    "windows": ["--fps", "10", "--size", "100", "--clip-frames", "7", "--clip-stride", "7"],
}


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """55 frames at 25 a second, 2.2 s, lying on its side: 80 wide and 108 high when upright."""
    folder = tmp_path_factory.mktemp("video")
    upright = render(Motion(dx_px=1.5, dy_px=0.5), 55, WIDTH, HEIGHT, seed=4)
    write_video(folder / "flat.mkv", np.rot90(upright, 1, (1, 2)), 25)
    with av.open(str(folder / "flat.mkv")) as flat, av.open(str(folder / "v.mkv"), "w") as turned:
        stream = turned.add_stream_from_template(flat.streams.video[0])
        stream.metadata["rotate"] = "90"
        for packet in flat.demux(video=0):
            if packet.size:
                packet.stream = stream
                turned.mux(packet)
    (folder / "flat.mkv").unlink()
    return folder / "v.mkv"


def extracted(video: Path, out: Path, *options: str) -> Path:
    command = [sys.executable, "-m", "flowprep", "extract", "--src", str(video), "--out", str(out)]
    common = ["--executor", "local", "--workers", "1", "--engine", "constant"]
    done = subprocess.run(
        [*command, *common, *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module", params=OPTIONS)
def lossless(
    request: pytest.FixtureRequest, video: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp(request.param) / "shards"
    return extracted(video, out, "--rgb-codec", "ffv1", *OPTIONS[request.param])


@pytest.fixture(scope="module")
def shrunk(video: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "shards"
    return extracted(video, out, "--rgb-codec", "ffv1", "--fps", "20", "--size", "50")


def settings_of(shards: Path) -> dict[str, Any]:
    found: dict[str, Any] = load_toml(shards / "_flowprep" / "config.toml")["settings"]
    return found


def stored(shards: Path) -> tuple[U8, list[float]]:
    """Frames of all samples in order of time, each once, and their times, by tarfile and PyAV."""
    members: dict[str, dict[str, bytes]] = {}
    for path in shards.glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                file = tar.extractfile(member)
                assert file is not None
                members.setdefault(key, {})[suffix.split(".")[0]] = file.read()
    frame_at: dict[float, U8] = {}
    for sample in members.values():
        with av.open(io.BytesIO(sample["rgb"]), "r") as container:
            frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        frame_at |= dict(zip(json.loads(sample["json"])["pts_s"], frames, strict=True))
    times = sorted(frame_at)
    return np.stack([frame_at[t] for t in times]), times


def middle(frames_THW3: U8, side: int) -> U8:
    top, left = ((n - side) // 2 for n in frames_THW3.shape[1:3])
    return frames_THW3[:, top : top + side, left : left + side]


def opened(video: Path, shards: Path, window: WindowConfig) -> Any:
    return open_video(video, settings_from(settings_of(shards), "test"), window)


def test_frames_are_bit_equal_to_those_that_extract_encodes(video: Path, lossless: Path) -> None:
    window = WindowConfig(frames=8, crop=48)
    found = opened(video, lossless, window)
    want, times = stored(lossless)
    got = np.stack(list(frames_of(found, window)))
    if "windows" in str(lossless):  # what is left after the last whole window is not stored
        assert len(got) > len(want)
        got = got[: len(want)]
    np.testing.assert_array_equal(got, middle(want, 48))
    np.testing.assert_allclose(found.time_T[: len(times)], times, atol=1e-9)
    assert want.shape[1] > want.shape[2]  # upright
    assert found.end_s == pytest.approx(2.2)


def test_the_default_codec_loses_little(video: Path, tmp_path: Path) -> None:
    shards = extracted(video, tmp_path / "shards")
    window = WindowConfig(frames=8, crop=224)
    want, _ = stored(shards)
    got = np.stack(list(frames_of(opened(video, shards, window), window)))
    error = got.astype(float) - middle(want, 224)
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 35
    assert np.abs(error).max() > 0


def test_frames_are_resized_as_windows_are(video: Path, shrunk: Path) -> None:
    import cv2

    window = WindowConfig(frames=8, resize=40, crop=32)
    got = list(frames_of(opened(video, shrunk, window), window))
    want = [cv2.resize(f, (40, 54), interpolation=cv2.INTER_AREA) for f in stored(shrunk)[0]]
    np.testing.assert_array_equal(np.stack(got), middle(np.stack(want), 32))


def save_run(folder: Path, window: WindowConfig, extraction: dict[str, Any], **other: Any) -> Path:
    """A run with random weights that tell windows apart."""
    torch.manual_seed(2)
    config = ModelConfig(width=0.1, n_classes=len(CLASSES))
    net = build(config)
    for module in net.modules():
        if isinstance(module, torch.nn.Conv3d):
            std = (8 / module.weight[0].numel()) ** 0.5
            torch.nn.init.normal_(module.weight, std=std)
    values = {
        "model": config,
        "modality": "rgb",
        "classes": CLASSES,
        "window": window,
        "extraction": extraction,
        "fingerprint": "0",
        "config": {},
        "step": 7,
        "epoch": 1.0,
        "val_top1": 0.5,
        "commit": "",
        "versions": {},
    }
    save_weights(folder / "best.safetensors", net.eval(), Meta(**{**values, **other}))
    return folder


WINDOW = WindowConfig(frames=8, stride=2, crop=48)


@pytest.fixture(scope="module")
def run(shrunk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("run"), WINDOW, settings_of(shrunk))


def by_hand(run: Path, frames_THW3: U8, starts: Sequence[int]) -> torch.Tensor:
    """Logits [N, K] of windows of 8 frames, 2 apart, 48 x 48."""
    windows = np.stack([middle(frames_THW3[s : s + 15 : 2], 48) for s in starts])
    x = torch.from_numpy(windows.astype(np.float32) * (2 / 255) - 1).permute(0, 4, 1, 2, 3)
    with torch.no_grad():
        logits: torch.Tensor = load_net(str(run))[0](x.contiguous())
    return logits


def test_logits_and_times_are_those_of_a_computation_by_hand(
    video: Path, shrunk: Path, run: Path, here: Place
) -> None:
    frames, times = stored(shrunk)
    assert len(frames) == 44
    starts, ends = [0, 16, 29], [15, 31, 44]  # the last window ends with the video
    seen = list(see(opened(video, shrunk, WINDOW), load_net(str(run))[0], WINDOW, 0.0, here))
    want = by_hand(run, frames, starts)
    got = torch.stack([one.logits_K for one in seen])
    assert want.std(0).min() > 1e-3
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(of_video(seen), want.mean(0), rtol=1e-5, atol=1e-5)
    bounds = [*times, 2.2]
    assert [one.start_s for one in seen] == pytest.approx([bounds[i] for i in starts])
    assert [one.end_s for one in seen] == pytest.approx([bounds[i] for i in ends])


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    predict(parse(PredictConfig, "predict", [str(a) for a in arguments]))
    return capsys.readouterr().out


def test_what_is_printed(
    video: Path, shrunk: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = told(capsys, "--run", run, video, "--top", 2).splitlines()
    assert lines[0] == f"{video}: 2.20 s, 44 frames taken"
    assert lines[1].strip().startswith("0.00 to      0.76 s  ")
    assert lines[3].strip().startswith("1.44 to      2.20 s  ")
    p = by_hand(run, stored(shrunk)[0], [0, 16, 29]).mean(0).softmax(0)
    first, second = p.argsort(descending=True).tolist()[:2]
    whole = f"{CLASSES[first]} {p[first]:.1%}, {CLASSES[second]} {p[second]:.1%}"
    assert lines[4].strip() == f"whole video  {whole}"
    assert len(lines) == 5


def test_json_is_one_document_for_all_videos(
    video: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads(told(capsys, video, video, "--run", run, "--json", "--every", 0.7))
    assert found["run"] == str(run)
    assert [v["video"] for v in found["videos"]] == [str(video)] * 2
    assert found["videos"][0] == found["videos"][1]
    one = found["videos"][0]
    assert one["seconds"] == pytest.approx(2.2)
    starts = [window["start_s"] for window in one["windows"]]
    assert starts == pytest.approx([0.0, 0.7, 1.4, 1.44], abs=0.021)
    for top in (one["top"], *(window["top"] for window in one["windows"])):
        assert {guess["class"] for guess in top} == set(CLASSES)
        p = [guess["probability"] for guess in top]
        assert p == sorted(p, reverse=True)
        assert sum(p) == pytest.approx(1)


@pytest.mark.parametrize(
    ("n_frames", "window", "starts"),
    [
        (24, WindowConfig(frames=8), [0, 8, 16]),
        (25, WindowConfig(frames=8), [0, 8, 16, 17]),
        (8, WindowConfig(frames=8), [0]),
        (9, WindowConfig(frames=8), [0, 1]),
        (3, WindowConfig(frames=8), [0]),
        (23, WindowConfig(frames=4, stride=3), [0, 12, 13]),
        (22, WindowConfig(frames=4, stride=3), [0, 12]),
    ],
)
def test_windows_lie_end_to_end_and_the_last_one_ends_with_the_video(
    n_frames: int, window: WindowConfig, starts: list[int]
) -> None:
    assert window_starts(np.arange(n_frames) / 25, window, 0.0) == starts


def test_windows_start_every_so_many_seconds() -> None:
    time_T = np.arange(101) / 25
    window = WindowConfig(frames=16)
    assert window_starts(time_T, window, 1.0) == [0, 25, 50, 75, 85]
    assert window_starts(time_T, window, 0.5) == [0, 12, 25, 37, 50, 62, 75, 85]
    assert window_starts(time_T, window, 0.001) == list(range(86))
    assert window_starts(time_T, window, 1e9) == [0, 85]
    assert window_starts(time_T[:2], window, 0.5) == [0]
    uneven = np.array([0, 0.1, 0.2, 1.0, 1.1, 2.0, 2.1, 2.2])
    assert window_starts(uneven, WindowConfig(frames=2), 1.0) == [0, 3, 5, 6]


def numbered(n_frames: int, alive: list[weakref.ref[U8]]) -> Iterator[U8]:
    for number in range(n_frames):
        frame = np.full((2, 2, 3), number, np.uint8)
        alive.append(weakref.ref(frame))
        yield frame


@pytest.mark.parametrize("starts", [[0, 8, 16, 24], [0, 1, 2, 17, 24], [24]])
def test_no_more_frames_are_held_than_a_window_has(starts: list[int]) -> None:
    window = WindowConfig(frames=3, stride=3)
    alive: list[weakref.ref[U8]] = []
    most = 0
    found = []
    for cut in cut_windows(numbered(31, alive), 31, starts, window):
        most = max(most, sum(ref() is not None for ref in alive))
        found.append(cut[:, 0, 0, 0].tolist())
    assert found == [[start, start + 3, start + 6] for start in starts]
    assert most <= window.span + 1


def test_a_short_video_loops() -> None:
    (cut,) = cut_windows(numbered(3, []), 3, [0], WindowConfig(frames=4, stride=2))
    assert cut[:, 0, 0, 0].tolist() == [0, 2, 1, 0]


def refused(run: Path, *videos: Path, **settings: Any) -> FlowprepError:
    with pytest.raises(FlowprepError) as caught:
        predict(PredictConfig(run=str(run), videos=tuple(map(str, videos)), **settings))
    assert caught.value.hint
    return caught.value


def test_videos_that_cannot_be_predicted(run: Path, video: Path, tmp_path: Path) -> None:
    gone, text, still, cut = (tmp_path / n for n in ("gone.mp4", "a.mp4", "b.mp4", "c.mkv"))
    text.write_text("not a video")
    write_video(still, render(Motion(), 1, 64, 64), 25)
    cut.write_bytes(video.read_bytes()[:-3000])
    assert str(refused(run, video, gone)).startswith(f"{gone}: No such file")
    assert "a.mp4 cannot be predicted: not-a-video: a.mp4" in str(refused(run, video, text))
    assert "b.mp4 cannot be predicted: too-short: 1 of 1 frames" in str(refused(run, still))
    assert "c.mkv cannot be predicted: truncated" in str(refused(run, cut))
    assert "no video given" in str(refused(run))
    assert "unreadable" in str(refused(run, tmp_path))


def test_nothing_is_printed_when_one_of_several_is_no_video(
    run: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(run, video, tmp_path / "gone.mp4")
    assert capsys.readouterr().out == ""


def test_a_video_that_breaks_off_in_the_middle(
    run: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changing = tmp_path / "v.mkv"
    changing.write_bytes(video.read_bytes())

    def and_change(*arguments: Any) -> Any:
        found = open_video(*arguments)
        changing.write_bytes(b"")
        return found

    monkeypatch.setattr("train.predict.open_video", and_change)
    assert "v.mkv cannot be predicted: changed" in str(refused(run, changing))


def test_runs_that_cannot_say(video: Path, tmp_path: Path) -> None:
    def make(name: str, **other: Any) -> Path:
        values = {"window": WINDOW, "extraction": asdict(Settings(short_side=0)), **other}
        return save_run(tmp_path / name, **values)

    flow = make("flow", modality="flow")
    assert "sees optical flow" in str(refused(flow, video))
    assert "student" in refused(flow, video).hint
    assert "synthetic" in str(refused(make("synthetic", extraction={}), video))
    assert "unknown setting" in str(refused(make("newer", extraction={"tempo": 1}), video))
    large = make("large", window=WindowConfig(frames=8, crop=96))
    assert "v.mkv is 80x108 after extraction's resize, the run sees 96x96" in str(
        refused(large, video)
    )
    assert "has format 2" in str(refused(make("later", format=2), video))
    (tmp_path / "best.safetensors").write_bytes(b"no weights")
    assert "holds no weights of this program" in str(refused(tmp_path, video))


@pytest.mark.parametrize(
    ("option", "value"), [("top", 0), ("every", -1.0), ("every", 1e-9), ("every", float("nan"))]
)
def test_options_out_of_range(option: str, value: float) -> None:
    with pytest.raises(FlowprepError, match=f"--{option} .* is not usable"):
        PredictConfig(**{option: value})  # type: ignore[arg-type]


def test_the_command(
    video: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["predict", "--run", str(run), str(video)])
    run_main(main)
    assert "whole video" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["predict", "--run", str(run)])
    with pytest.raises(SystemExit) as caught:
        run_main(main)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("Error: no video given\nHint: ")
