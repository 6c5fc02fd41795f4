"""What an export gives to the readers it is for."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from flowprep.export.flo import flo_bytes
from flowprep.export.formats import rounded_codes
from flowprep.quantize import make_quantizer


def _readers() -> ModuleType:
    path = Path(__file__).with_name("readers.py")
    spec = importlib.util.spec_from_file_location("export_readers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


readers = _readers()
DENSEFLOW = ("--to", "rawframes", "--style", "denseflow")
TSN = ("--to", "rawframes", "--style", "tsn")
PNG = ("--image", "png")
EVERY_CODE = np.tile(np.arange(256, dtype=np.uint8)[:, None], (1, 2, 1))


def cast(v: float, bound: float) -> int:
    """CAST of denseflow's and dense_flow's src/common.cpp; cvRound takes the even of two halves."""
    if v > bound:
        return 255
    return 0 if v < -bound else round(255 * (v + bound) / (2 * bound))


def codes_of(flow_px: np.ndarray, bound: float = 20.0) -> np.ndarray:
    """`cast` of every value, as [T, H, W, 2] like the readers have it."""
    values, places = np.unique(flow_px, return_inverse=True)
    codes = np.array([cast(float(v), bound) for v in values])
    return codes[places].reshape(flow_px.shape).transpose(0, 2, 3, 1)


def by_folder(items: list[Any]) -> dict[str, Any]:
    return {Path(item.frame_dir).name: item for item in items}


PATHS = {"a": "train/ride bike/a.mp4", "b.x": "train/walk/b.x.mp4", "c": "val/walk/c.mp4"}


@pytest.mark.parametrize(("split", "names"), [("train", ["a", "b.x"]), ("val", ["c"])])
def test_mmaction2_reads_a_denseflow_export(
    exported: Callable[..., Path], stored: dict[str, Any], split: str, names: list[str]
) -> None:
    out = exported(*DENSEFLOW, *PNG)
    rgb = by_folder(readers.mmaction2_list(out / f"{split}_rgb.txt", out / "rawframes"))
    flow = by_folder(readers.mmaction2_list(out / f"{split}_flow.txt", out / "rawframes"))
    assert sorted(rgb) == sorted(flow) == names
    for name in names:
        sample = stored[PATHS[name]]
        frames = readers.mmaction2_frames(rgb[name], "img_{:05}.png", 0, "RGB")
        assert np.array_equal(frames, sample.rgb)
        codes = readers.mmaction2_frames(flow[name], "flow_{}_{:05d}.png", 0, "Flow")
        assert np.array_equal(codes, codes_of(sample.flow_px))
        assert rgb[name].label == flow[name].label == sample.info.label_index


@pytest.mark.parametrize("split", ["train", "val"])
def test_tsn_reads_a_tsn_export(
    exported: Callable[..., Path], stored: dict[str, Any], split: str
) -> None:
    out = exported(*TSN, *PNG)
    rgb = by_folder(readers.tsn_list(out / f"{split}_rgb.txt"))
    flow = by_folder(readers.tsn_list(out / f"{split}_flow.txt"))
    for name, item in rgb.items():
        path = next(p for p in PATHS.values() if Path(p).name.split(".")[0] == name)
        sample = stored[path]
        frames = readers.tsn_frames(item, "img_{:05d}.png", "RGB")
        assert np.array_equal(frames, sample.rgb[1:])  # the second frame of each pair
        codes = readers.tsn_frames(flow[name], "flow_{}_{:05d}.png", "Flow")
        assert np.array_equal(codes, codes_of(sample.flow_px))
        assert item.label == sample.info.label_index


def test_flow_as_png_is_within_a_code_of_the_shards(
    exported: Callable[..., Path], stored: dict[str, Any]
) -> None:
    out = exported(*DENSEFLOW, *PNG)
    for item in readers.mmaction2_list(out / "train_flow.txt", out / "rawframes"):
        sample = stored[PATHS[Path(item.frame_dir).name]]
        codes = readers.mmaction2_frames(item, "flow_{}_{:05d}.png", 0, "Flow")
        px = (codes.astype(np.float64) - 127.5) * 40 / 255
        off_px = np.abs(px.transpose(0, 3, 1, 2) - sample.flow_px)
        assert off_px.max() <= sample.info.flow_px_per_code
        assert sample.flow_px.std() > 0.3  # there is something to lose


def test_flow_as_jpeg_is_within_half_a_code_on_average(exported: Callable[..., Path]) -> None:
    plain, lossy = exported(*DENSEFLOW, *PNG), exported(*DENSEFLOW)
    exact = readers.mmaction2_list(plain / "train_flow.txt", plain / "rawframes")
    for item, want in zip(
        readers.mmaction2_list(lossy / "train_flow.txt", lossy / "rawframes"), exact, strict=True
    ):
        codes = readers.mmaction2_frames(item, "flow_{}_{:05d}.jpg", 0, "Flow").astype(int)
        off = np.abs(codes - readers.mmaction2_frames(want, "flow_{}_{:05d}.png", 0, "Flow"))
        assert 0 < off.mean() <= 0.5
        assert off.max() <= 8


def test_jpegs_are_those_of_opencvs_default(
    exported: Callable[..., Path], stored: dict[str, Any]
) -> None:
    folder = exported(*DENSEFLOW) / "rawframes" / "walk" / "c"
    sample = stored["val/walk/c.mp4"]
    for number in (0, 7):
        bgr = cv2.cvtColor(sample.rgb[number], cv2.COLOR_RGB2BGR)
        assert (folder / f"img_{number:05d}.jpg").read_bytes() == cv2.imencode(".jpg", bgr)[
            1
        ].tobytes()
    x = codes_of(sample.flow_px)[3, :, :, 0].astype(np.uint8)
    data = cv2.imencode(".jpg", x, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    assert (folder / "flow_x_00003.jpg").read_bytes() == data


def names_in(folder: Path, pattern: str) -> list[int]:
    found = (re.fullmatch(pattern, path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in found if match)


@pytest.mark.parametrize(
    ("style", "folder", "rgb", "flow"),
    [
        # denseflow: src/common.cpp writeImages and writeFlowImages, "_%05d.jpg" of start + i
        (DENSEFLOW, "walk/b.x", range(8), range(7)),
        # dense_flow 4490b4e: src/common.cpp writeImages, "_%05d.jpg" of i + 1; the image pushed
        # with each flow is capture_image, the second of the pair (src/dense_flow_gpu.cpp)
        (TSN, "b", range(1, 8), range(1, 8)),
    ],
)
def test_files_are_named_as_the_writer_names_them(
    exported: Callable[..., Path], style: tuple[str, ...], folder: str, rgb: range, flow: range
) -> None:
    place = exported(*style) / "rawframes" / folder
    assert names_in(place, r"img_(\d{5})\.jpg") == list(rgb)
    assert names_in(place, r"flow_x_(\d{5})\.jpg") == list(flow)
    assert names_in(place, r"flow_y_(\d{5})\.jpg") == list(flow)
    assert len(list(place.iterdir())) == len(rgb) + 2 * len(flow)


def test_npz_holds_what_the_shard_holds(
    exported: Callable[..., Path], stored: dict[str, Any]
) -> None:
    out = exported("--to", "npz")
    for name, folder in (("a", "ride_bike"), ("b.x", "walk"), ("c", "walk")):
        sample = stored[PATHS[name]]
        with np.load(out / "npz" / folder / f"{name}.npz", allow_pickle=False) as arrays:
            assert np.array_equal(arrays["rgb_THW3"], sample.rgb)
            assert arrays["flow_T2HW"].dtype == np.float32
            assert np.array_equal(arrays["flow_T2HW"], sample.flow_px)
            assert arrays["pts_s"].tolist() == sample.info.pts_s
            assert arrays["source_index"].tolist() == sample.info.source_index
            assert str(arrays["label"]) == sample.info.label
            assert int(arrays["label_index"]) == sample.info.label_index
            assert json.loads(str(arrays["info_json"]))["path"] == PATHS[name]
            assert str(arrays["path"]) == PATHS[name]


def test_flo_holds_what_the_shard_holds(
    exported: Callable[..., Path], stored: dict[str, Any]
) -> None:
    folder = exported("--to", "flo") / "flo" / "ride_bike" / "a"
    sample = stored[PATHS["a"]]
    assert sorted(p.name for p in folder.iterdir()) == [f"{i:05d}.flo" for i in range(7)]
    for number, flow_2HW in enumerate(sample.flow_px):
        read = cv2.readOpticalFlow(str(folder / f"{number:05d}.flo"))
        assert np.array_equal(read.transpose(2, 0, 1), flow_2HW)


def test_flo_files_are_middleburys(tmp_path: Path) -> None:
    flow = np.random.default_rng(0).normal(0, 5, (2, 5, 9)).astype(np.float32)
    (tmp_path / "a.flo").write_bytes(flo_bytes(flow))
    read = cv2.readOpticalFlow(str(tmp_path / "a.flo"))
    assert np.array_equal(read.transpose(2, 0, 1), flow)
    data = (tmp_path / "a.flo").read_bytes()
    assert data[:12] == b"PIEH" + bytes([9, 0, 0, 0, 5, 0, 0, 0])
    assert len(data) == 12 + 5 * 9 * 2 * 4


@pytest.mark.parametrize("bound", [5.0, 20.0, 32.0])
def test_flow_is_quantised_to_the_last_code_as_the_writers_do(bound: float) -> None:
    """All codes of both maps, most near a border of the other, and the ends of the range."""
    flow_px = [make_quantizer(n, 20.0).decode(EVERY_CODE).ravel() for n in ("symmetric", "i3d")]
    flow_px.append(np.array([-1e6, -bound, 0, bound, 1e6], np.float32))
    for values in flow_px:
        want = [cast(float(v), bound) for v in values]
        assert rounded_codes(values, bound).tolist() == want
    if bound == 20:
        assert rounded_codes(flow_px[1], bound)[:256].tolist() == list(range(256))


def test_what_is_selected(dataset: Path, stored: dict[str, Any], tmp_path: Path, cli: Any) -> None:
    out = tmp_path / "out"
    assert cli("export", dataset, "--out", out, *DENSEFLOW, "--split", "val").exit_code == 0
    assert [p.name for p in sorted(out.glob("*.txt"))] == [
        *("classes.txt", "val_flow.txt", "val_rgb.txt")
    ]
    key = stored[PATHS["a"]].info.key
    (tmp_path / "keys.txt").write_text(f"{key}\n")
    assert (
        cli("export", dataset, "--out", out, *DENSEFLOW, "--keys", tmp_path / "keys.txt").exit_code
        == 0
    )
    assert (out / "train_rgb.txt").read_text() == "ride_bike/a 8 0\n"
    assert (out / "val_rgb.txt").read_text() == "walk/c 8 1\n"
    assert not (out / "rawframes" / "walk" / "b.x").exists()
