"""The probe finds flow where there is some, and its report says what was measured."""

from __future__ import annotations

import colorsys
import json
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flowprep.errors import FlowprepError
from train.checkpoint import BEST, Meta, save_weights, versions
from train.common import Place
from train.config import Data, parse
from train.data.batch import FLOW_CLIP_PX, Batch, network_input
from train.data.table import Table
from train.data.windows import WindowConfig
from train.flow_picture import PANEL, Shown, middle_step, write_picture
from train.flow_probe import Errors, ErrorSums, FlowProbe, MeanFlow, fit, judge
from train.models.base import Classifier, ModelConfig, Tapped, VideoModel, build
from train.probe import ProbeConfig, run_probe, unit_of, window_of

CPU = Place(0, 1, torch.device("cpu"), bf16=False)
WINDOW = WindowConfig(frames=4, crop=32, hflip=True)
PX_PER_GRAY = 0.05


class Mean8(nn.Module):
    """The mean over 8x8 pixels and pairs of frames."""

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return nn.functional.avg_pool3d(x_BCTHW, (2, 8, 8))


def averaging_net() -> VideoModel:
    """A network whose layer "mean" holds whatever flow the RGB frames spell out."""
    first = nn.Conv3d(3, 3, 1)  # the network's input channels are read off its first weights
    nn.init.dirac_(first.weight)
    nn.init.zeros_(first.bias)  # type: ignore[arg-type]
    mean = nn.Sequential(first, Mean8())
    layers = nn.Sequential(OrderedDict(mean=mean, pool=nn.AdaptiveAvgPool3d(1)))
    return VideoModel(layers, {"mean": "mean"}, Classifier(3, ModelConfig(n_classes=2)))


def batches(*, spelled: bool, seed: int) -> Iterator[Batch]:
    """Flow uniform over blocks of 8 pixels, and frames that spell it out or are noise."""
    rng = np.random.default_rng(seed)
    while True:
        gray = rng.integers(0, 256, (4, 2, 4, 4, 4)).repeat(8, 3).repeat(8, 4)
        flow_px = (gray - 128) * PX_PER_GRAY + np.reshape([1.0, -2.0], (2, 1, 1, 1))
        other = rng.integers(0, 256, (4, 3, 4, 32, 32))
        rgb = np.concatenate([gray, other[:, :1]], 1) if spelled else other
        yield Batch(
            torch.from_numpy(rgb.astype(np.uint8)),
            torch.from_numpy(flow_px / FLOW_CLIP_PX).float(),
            torch.zeros(4, dtype=torch.int64),
            torch.arange(4),
        )


def some(n: int, **how: Any) -> list[Batch]:
    return [batch for batch, _ in zip(batches(**how), range(n), strict=False)]


def probed(decoder: str, *, spelled: bool, steps: int, lr: float) -> Errors:
    torch.manual_seed(0)
    probe = FlowProbe(averaging_net(), "mean", decoder, finetune=False)
    mean_2 = fit(probe, batches(spelled=spelled, seed=1), steps, lr, CPU)
    return judge(probe, some(4, spelled=spelled, seed=2), 16, mean_2, CPU)[0]


@pytest.mark.parametrize(
    ("decoder", "steps", "lr", "share"),
    [("simple", 100, 0.1, 0.01), ("spatial", 150, 1e-3, 0.5), ("pwc", 80, 2e-3, 0.3)],
)
def test_flow_in_the_features_is_found(decoder: str, steps: int, lr: float, share: float) -> None:
    errors = probed(decoder, spelled=True, steps=steps, lr=lr)
    assert errors.epe_px < share * errors.mean_flow_epe_px


@pytest.mark.parametrize("decoder", ["simple", "spatial", "pwc"])
def test_noise_is_no_better_than_the_mean_flow(decoder: str) -> None:
    errors = probed(decoder, spelled=False, steps=40, lr=1e-3)
    assert errors.epe_px > 0.97 * errors.mean_flow_epe_px


def test_constants_against_numpy() -> None:
    train, val = some(3, spelled=True, seed=1), some(2, spelled=True, seed=2)
    seen = np.concatenate([batch.flow_B2THW.numpy() * 20 for batch in train])
    mean = seen.mean((0, 2, 3, 4), dtype=np.float64)
    mean_flow = MeanFlow()
    for batch in train:
        mean_flow.add(batch.flow_B2THW * 20)
    np.testing.assert_allclose(mean_flow.value(), mean, atol=1e-6)
    sums = ErrorSums(mean_flow.value())
    for batch in val:
        sums.add(batch.flow_B2THW * 20 + 3, batch.flow_B2THW * 20)
    target = np.concatenate([batch.flow_B2THW.numpy() * 20 for batch in val]).swapaxes(0, 1)
    off = target - mean[:, None, None, None, None]
    expected = (3 * np.sqrt(2), np.hypot(*target).mean(), np.hypot(*off).mean())
    found = sums.value()
    np.testing.assert_allclose(
        (found.epe_px, found.zero_flow_epe_px, found.mean_flow_epe_px), expected, rtol=1e-5
    )
    assert found.left == pytest.approx(expected[0] / expected[1], rel=1e-5)


def test_mean_flow_is_that_of_the_training_targets() -> None:
    torch.manual_seed(0)
    probe = FlowProbe(averaging_net(), "mean", "simple", finetune=False)
    mean_2 = fit(probe, batches(spelled=True, seed=1), 3, 0.1, CPU)
    seen = np.stack([batch.flow_B2THW.numpy() * 20 for batch in some(3, spelled=True, seed=1)])
    np.testing.assert_allclose(mean_2, seen.mean((0, 1, 3, 4, 5), dtype=np.float64), atol=1e-5)


def small_net() -> VideoModel:
    torch.manual_seed(0)
    return build(ModelConfig(width=0.1, n_classes=4)).eval()


def trained(finetune: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """State of the backbone before and after some steps."""
    probe = FlowProbe(small_net(), "2c", "simple", finetune)
    before = {name: value.clone() for name, value in probe.backbone.state_dict().items()}
    fit(probe, batches(spelled=True, seed=1), 2, 0.1, CPU)
    return before, dict(probe.backbone.state_dict())


def test_a_fixed_backbone_keeps_weights_and_statistics() -> None:
    before, after = trained(finetune=False)
    assert before
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_finetuning_moves_weights_and_statistics() -> None:
    before, after = trained(finetune=True)
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert {"conv_1a.conv.weight", "conv_1a.norm.running_mean"} <= moved


def test_the_probed_network_is_left_alone() -> None:
    net = small_net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    fit(FlowProbe(net, "2c", "simple", finetune=True), batches(spelled=True, seed=1), 2, 0.1, CPU)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
    assert all(p.requires_grad for name, p in net.named_parameters() if "norm" not in name)


def test_what_is_probed_is_the_feature_of_that_layer() -> None:
    net, batch = small_net(), some(1, spelled=False, seed=3)[0]
    rgb = network_input(batch, "rgb")
    for layer in ("1a", "3A", "4b"):
        with torch.no_grad():
            _, features = Tapped(net, [layer])(rgb)
            found = FlowProbe(net, layer, "simple", finetune=False).eval().backbone(rgb)
        torch.testing.assert_close(found, features[layer], rtol=0, atol=0)


def test_features_are_standardised_once_on_training_batches() -> None:
    probe = FlowProbe(small_net(), "1a", "simple", finetune=False)
    first, second = (network_input(b, "rgb") for b in some(2, spelled=False, seed=3))
    probe.eval()(second)
    probe.train()(first)
    kept = probe.standardize.mean.clone()
    probe(second)
    feature = probe.backbone(first)
    assert torch.equal(probe.standardize.mean, kept)
    np.testing.assert_allclose(kept.flatten(), feature.mean((0, 2, 3, 4)), rtol=1e-4, atol=1e-9)
    scaled = probe.standardize(feature)
    lively = feature.std((0, 2, 3, 4)) > 0
    np.testing.assert_allclose(scaled.std((0, 2, 3, 4))[lively], 1, rtol=1e-3)


def test_clips_shown_are_spread_over_the_split() -> None:
    probe = FlowProbe(averaging_net(), "mean", "simple", finetune=False)
    seen = some(4, spelled=True, seed=2)
    frames = torch.cat([batch.rgb_B3THW for batch in seen])
    _, shown = judge(probe, seen, 16, torch.zeros(2), CPU)
    places = [0, 3, 6, 9, 12, 15]
    expected = [frames[i, :, 2].permute(1, 2, 0).numpy() for i in places]
    assert [one.frame_HW3.tolist() for one in shown] == [one.tolist() for one in expected]


def still() -> Batch:
    return some(1, spelled=True, seed=1)[0]._replace(flow_B2THW=torch.zeros(4, 2, 4, 32, 32))


def test_still_videos_are_refused() -> None:
    probe = FlowProbe(averaging_net(), "mean", "simple", finetune=False)
    with pytest.raises(FlowprepError, match="nothing moves in the split val"):
        judge(probe, [still()], 4, torch.zeros(2), CPU)


def test_training_gone_astray_is_told() -> None:
    probe = FlowProbe(averaging_net(), "mean", "simple", finetune=False)
    fit(probe, batches(spelled=True, seed=1), 2, float("inf"), CPU)
    seen = some(1, spelled=True, seed=2)
    with pytest.raises(
        FlowprepError, match=r"error of the decoder is nan\nHint: give a lower --lr"
    ):
        judge(probe, seen, 4, torch.zeros(2), CPU)


def uniform(dx: float, dy: float, size: int = 28) -> np.ndarray:
    return np.tile(np.reshape([dx, dy], (2, 1, 1)), (1, size, size)).astype(np.float32)


def hue(dx: float, dy: float, longest: float) -> tuple[int, ...]:
    """Python's own HSV."""
    angle, length = np.arctan2(dy, dx) / (2 * np.pi) % 1, min(1, np.hypot(dx, dy) / longest)
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(angle, length, 1))


def pixels_of(path: Path) -> dict[tuple[int, ...], int]:
    bgr = cv2.imread(str(path))
    assert bgr is not None
    rgb = bgr[..., ::-1].reshape(-1, 3)
    colors, counts = np.unique(rgb, axis=0, return_counts=True)
    return {tuple(color.tolist()): int(n) for color, n in zip(colors, counts, strict=True)}


def test_one_scale_for_a_whole_picture(tmp_path: Path) -> None:
    frame = np.full((50, 50, 3), (7, 90, 7), np.uint8)
    shown = [
        Shown(frame, uniform(4, 3), uniform(0, 2.5)),
        Shown(frame, uniform(-1, 1, 7), uniform(-60, 25, 7)),
    ]
    write_picture(tmp_path / "a.png", shown, "title", "px")
    found = pixels_of(tmp_path / "a.png")
    expected = [hue(4, 3, 5), hue(0, 2.5, 5), hue(-1, 1, 5), hue(-60, 25, 5)]
    assert all(PANEL**2 <= found[color] < PANEL**2 + 500 for color in expected)  # + the wheel
    assert found[7, 90, 7] == 2 * PANEL**2


@pytest.mark.parametrize("size", [7, 28, 112])
def test_cells_are_squares_of_one_color(tmp_path: Path, size: int) -> None:
    """The picture of a chequered flow has no other colour, and as many pixels of either."""
    cells = np.indices((size, size)).sum(0) % 2
    flow = np.stack([cells * 2.0 - 1, np.zeros((size, size))]).astype(np.float32)
    shown = [Shown(np.zeros((8, 8, 3), np.uint8), flow, np.zeros_like(flow))]
    write_picture(tmp_path / "a.png", shown, "", "")
    found = pixels_of(tmp_path / "a.png")
    side = PANEL // size
    right = size**2 // 2 * side**2
    assert right <= found[hue(1, 0, 1)] < right + 500
    assert PANEL**2 - right <= found[hue(-1, 0, 1)] < PANEL**2 - right + 500


def test_still_pictures_can_be_drawn(tmp_path: Path) -> None:
    shown = [Shown(np.zeros((8, 8, 3), np.uint8), uniform(0, 0), uniform(0, 0))]
    write_picture(tmp_path / "a.png", shown, "", "px")
    assert pixels_of(tmp_path / "a.png")[255, 255, 255] > 2 * PANEL**2


def test_the_step_shown_is_that_of_the_frame() -> None:
    rgb = torch.arange(8, dtype=torch.uint8).reshape(1, 8, 1, 1).expand(3, 8, 4, 4)
    flow = torch.arange(4.0).reshape(1, 4, 1, 1).expand(2, 4, 2, 2)
    one = middle_step(rgb, flow, flow + 1)
    assert (one.frame_HW3 == 4).all()  # frames 4 and 5 make step 2
    assert (one.target_2HW == 2).all()
    assert (one.flow_2HW == 3).all()


@pytest.mark.parametrize(
    ("window", "picture"),
    [
        ({}, "input"),
        ({"resize": 128}, "stored picture"),
        ({"resize": 128, "scale_flow": True}, "input"),
    ],
)
def test_unit(window: dict[str, Any], picture: str) -> None:
    assert unit_of(WindowConfig(crop=64, **window)) == f"px of the {picture} per frame step"


def meta_of(modality: Any = "rgb", **changed: Any) -> Meta:
    values = {
        "model": ModelConfig(width=0.1, n_classes=4, in_channels=3 if modality == "rgb" else 2),
        "classes": list("abcd"),
        "window": WINDOW,
        "extraction": {},
        "fingerprint": "made up",
        "config": {},
        "step": 7,
        "epoch": 1.0,
        "val_top1": 0.5,
        "commit": "",
        "versions": versions(),
    }
    return Meta(modality=modality, **{**values, **changed})


def test_window_is_the_runs_where_nothing_else_is_given() -> None:
    assert window_of(meta_of(), Data()) == WINDOW
    given = window_of(meta_of(), Data(frames=8, stride=2))
    assert given == WindowConfig(frames=8, stride=2, crop=32, hflip=True)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    save_weights(folder / BEST, small_net(), meta_of())
    return folder


def probe_command(run: Path, *arguments: str) -> dict[str, Any]:
    made_up = ["--run", str(run), "--data", "synthetic", "--device", "cpu"]
    run_probe(parse(ProbeConfig, "probe", [*made_up, *arguments]), CPU)
    report: dict[str, Any] = json.loads((run / "probe" / "probe.json").read_text())
    return report


def test_command(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("--layer", "1a", "3A", "--decoder", "simple", "--steps", "2", "--batch", "4")
    report = probe_command(run, *small)
    lines = capsys.readouterr().out.splitlines()
    assert [row["layer"] for row in report["layers"]] == ["1a", "3A"]
    assert [row["grid_HW"] for row in report["layers"]] == [[16, 16], [4, 4]]
    for line, row in zip(lines, report["layers"], strict=False):
        assert line == (
            f"{row['layer']} simple:  EPE {row['epe_px']:.3f} "
            f"({row['epe_px'] / row['zero_flow_epe_px']:.1%} of zero flow's)"
            f"  zero flow {row['zero_flow_epe_px']:.3f}  mean flow {row['mean_flow_epe_px']:.3f}"
            "  px of the input per frame step"
        )
        assert row["zero_flow_epe_px"] == pytest.approx(3, abs=0.1)  # all move by 3 px
        check_files(run / "probe", row)
    assert report["unit"] == "px of the input per frame step"
    assert (report["clips"], report["window"]["crop"]) == (16, 32)
    assert probe_command(run, *small)["layers"] == report["layers"]
    alone = probe_command(run, *small[:1], *small[2:])
    assert alone["layers"] == report["layers"][1:]
    other = probe_command(run, *small, "--layer", "3A", "--seed", "1")["layers"][0]
    assert other["mean_flow_px"] != report["layers"][1]["mean_flow_px"]


def check_files(folder: Path, row: dict[str, Any]) -> None:
    picture, target, decoded = (str(folder / name) for name in row["files"])
    assert cv2.imread(picture) is not None
    height, width = row["grid_HW"]
    flows = [cv2.readOpticalFlow(path) for path in (target, decoded)]
    assert [flow.shape for flow in flows] == [(height, width, 2)] * 2
    length = np.hypot(flows[0][..., 0], flows[0][..., 1])
    assert length.mean() == pytest.approx(3, abs=0.2)
    assert length.max() <= row["picture_longest_px"]


def test_command_fine_tunes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("--layer", "1a", "--decoder", "pwc", "--steps", "1", "--batch", "2", "--frames", "2")
    report = probe_command(run, *small, "--finetune")
    assert capsys.readouterr().out.startswith("1a pwc fine-tuned:  EPE ")
    assert report["window"]["frames"] == 2
    assert report["config"]["finetune"] is True


def test_a_run_of_flow_is_refused(tmp_path: Path) -> None:
    meta = meta_of("flow")
    save_weights(tmp_path / BEST, build(meta.model), meta)
    with pytest.raises(FlowprepError, match="network of flow: it sees the flow, there is nothing"):
        probe_command(tmp_path)


@pytest.mark.parametrize("layers", [("9z",), ("1a", "pool")])
def test_layers_are_checked_before_anything_is_trained(run: Path, layers: tuple[str]) -> None:
    with pytest.raises(FlowprepError, match=f"layer '{layers[-1]}'\nHint: allowed: 1a, 2b"):
        probe_command(run, "--layer", *layers)
    assert not (run / "probe").exists()


def test_a_missing_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(FlowprepError, match="no weights at"):
        probe_command(tmp_path / "none")


def test_an_empty_split_is_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = Table.only

    def without_val(table: Table, split: str) -> Table:
        return table.rows(np.arange(0)) if split == "val" else everything(table, split)

    monkeypatch.setattr(Table, "only", without_val)
    with pytest.raises(FlowprepError, match="no sample is in the split val"):
        probe_command(run)


@pytest.mark.parametrize("arguments", [("--steps", "0"), ("--batch", "0"), ("--lr", "0")])
def test_numbers_out_of_range_are_refused(arguments: tuple[str, str]) -> None:
    with pytest.raises(FlowprepError, match=f"{arguments[0]} .* is not usable"):
        parse(ProbeConfig, "probe", arguments)


def test_several_processes_are_refused(run: Path) -> None:
    with pytest.raises(FlowprepError, match="one process"):
        run_probe(ProbeConfig(run=str(run)), Place(0, 2, torch.device("cpu"), bf16=False))
