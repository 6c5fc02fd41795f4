"""Folders of images that other tools have written, back into shards."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import pytest

from flowprep.cli.import_ import rawframes
from flowprep.codec.base import get_codec
from flowprep.config import Settings
from flowprep.errors import FlowprepError
from flowprep.shard.index import load_failures, load_index
from flowprep.shard.layout import Layout
from flowprep.shard.reader import read_at

N_FRAMES, HEIGHT, WIDTH = 6, 32, 40
LOSSLESS = ("--rgb-codec", "ffv1", "--flow-codec", "ffv1-flow")
PLAIN = ("--executor", "local", "--workers", 1, "--quiet")


def rgb_of(frame: int) -> np.ndarray:
    """A picture that tells the number of its frame."""
    picture = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    picture[:] = (20 * frame, 255 - 20 * frame, 40)
    return picture


def flow_of(frame: int) -> np.ndarray:
    """float32 [2, H, W], px: flow from this frame to the next, all over the range."""
    rows = np.linspace(-19, 19, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    return np.stack([rows, -rows + frame / 4]).astype(np.float32)


def write(path: Path, image: np.ndarray) -> None:
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())


def denseflow_writes(folder: Path, suffix: str = ".png", n: int = N_FRAMES) -> None:
    """src/denseflow_gpu.cpp, src/common.cpp: all from 0, flow k from image k to image k + 1."""
    for k in range(n):
        write(folder / f"img_{k:05d}{suffix}", rgb_of(k)[..., ::-1])
    for k in range(n - 1):
        for axis, v in zip("xy", flow_of(k), strict=True):
            codes = np.rint(255 * (v.astype(float) + 20) / 40).astype(np.uint8)
            write(folder / f"flow_{axis}_{k:05d}{suffix}", codes)


def dense_flow_writes(folder: Path, suffix: str = ".png", n: int = N_FRAMES) -> None:
    """src/dense_flow_gpu.cpp of dense_flow: with the flow of each pair its second image, from 1."""
    for k in range(1, n):
        write(folder / f"img_{k:05d}{suffix}", rgb_of(k)[..., ::-1])
        for axis, v in zip("xy", flow_of(k - 1), strict=True):
            codes = np.rint(255 * (v.astype(float) + 20) / 40).astype(np.uint8)
            write(folder / f"flow_{axis}_{k:05d}{suffix}", codes)


def mars_writes(folder: Path, suffix: str = ".png", n: int = N_FRAMES) -> None:
    """utils1/extract_frames_flows.py: all from 1, cut to bytes; an empty file at the end."""
    for k in range(1, n + 1):
        write(folder / f"{k:05d}{suffix}", rgb_of(k - 1)[..., ::-1])
    for k in range(1, n):
        flow = np.minimum(20, np.maximum(-20, flow_of(k - 1)))
        codes = ((flow + 20) / 40.0 * 255.0).astype(np.uint8)
        for axis, plane in zip("xy", codes, strict=True):
            write(folder / f"TVL1jpg_{axis}_{k:05d}{suffix}", plane)
    (folder / "done").touch()


WRITERS = {"denseflow": denseflow_writes, "tsn": dense_flow_writes, "mars": mars_writes}


def extracted(root: Path, style: str, *names: str, **how: Any) -> Path:
    for name in names:
        folder = root / name
        folder.mkdir(parents=True)
        WRITERS[style](folder, **how)
    return root


def read_all(out: Path) -> dict[str, tuple[Any, np.ndarray, np.ndarray]]:
    """path -> (json, RGB [T, H, W, 3], flow [T-1, 2, H, W] in pixels)."""
    found = {}
    for shard, row in load_index(Layout(out).index):
        sample = read_at(Layout(out).tar(shard), row)
        info = sample.info
        rgb = get_codec(info.rgb_codec, ["rgb"]).read(sample.members[info.rgb_member])
        codes = get_codec(info.flow_codec, ["flow8"]).read(sample.members[info.flow_member])
        flow = (codes.astype(np.float32) - info.flow_zero_code) * info.flow_px_per_code
        found[row.path] = info, rgb, flow.reshape(len(codes), 2, info.height, info.width)
    return found


@pytest.mark.parametrize(
    ("style", "first"),
    [pytest.param("denseflow", 0, marks=pytest.mark.slow), ("tsn", 1), ("mars", 0)],
)
def test_flow_i_leads_from_rgb_i_to_the_next(
    tmp_path: Path, cli: Any, style: str, first: int
) -> None:
    source = extracted(tmp_path / "frames", style, "walk/a", "walk/b.c", "run far/a")
    out = tmp_path / "shards"
    options = ("--style", style, "--out", out, "--fps", 10, *LOSSLESS, *PLAIN)
    result = cli("import", "rawframes", source, *options)
    assert result.exit_code == 0, result.output
    samples = read_all(out)
    assert set(samples) == {"walk/a", "walk/b.c", "run far/a"}
    for path, (info, rgb, flow) in samples.items():
        assert info.label == path.split("/")[0]
        frames = range(first, N_FRAMES)
        assert np.array_equal(rgb, np.stack([rgb_of(frame) for frame in frames]))
        truth = np.stack([flow_of(frame) for frame in frames[:-1]])
        step_px = 40 / 255
        assert np.abs(flow - truth).max() <= step_px / 2 * 1.001
        assert abs((flow - truth).mean()) < 0.05 * step_px  # nothing is shifted by half a code
        assert info.pts_s == [pytest.approx(i / 10) for i in range(len(frames))]
        assert (info.engine, info.flow_bound_px) == ("imported", 20.0)
        assert f'"style": "{style}"' in info.engine_params
    assert cli("verify", out, "--recompute", 1, "--deep").exit_code == 0


@pytest.mark.parametrize("style", ["denseflow", pytest.param("tsn", marks=pytest.mark.slow)])
def test_an_export_comes_back(
    exported: Callable[..., Path], stored: dict[str, Any], tmp_path: Path, cli: Any, style: str
) -> None:
    frames = exported("--to", "rawframes", "--style", style, "--image", "png") / "rawframes"
    out = tmp_path / "shards"
    options = ("--style", style, "--out", out, *LOSSLESS, *PLAIN)
    assert cli("import", "rawframes", frames, *options).exit_code == 0
    back, skipped = read_all(out), int(style == "tsn")
    names = {"denseflow": "walk/c", "tsn": "c"}
    _, rgb, flow = back[names[style]]
    before = stored["val/walk/c.mp4"]
    assert np.array_equal(rgb, before.rgb[skipped:])
    assert np.abs(flow - before.flow_px[skipped:]).max() <= before.info.flow_px_per_code


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_byte(path: Path) -> None:
    data = bytearray(cv2.imencode(".png", rgb_of(1))[1].tobytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def leave_only(folder: Path, *names: str) -> None:
    for image in folder.iterdir():
        if image.name not in names:
            image.unlink()


def leave_out(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


DAMAGES: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "half an image": (lambda f: halve(f / "img_00002.jpg"), "truncated", "img_00002.jpg"),
    "an empty image": (
        lambda f: (f / "flow_y_00001.jpg").write_bytes(b""),
        *("truncated", "flow_y_00001.jpg"),
    ),
    "no image": (
        lambda f: (f / "img_00002.jpg").write_bytes(b"<html>404</html>"),
        *("decode-error", "neither a JPEG nor a PNG"),
    ),
    "another size": (
        lambda f: write(f / "flow_x_00003.jpg", np.zeros((HEIGHT, WIDTH + 2), np.uint8)),
        *("decode-error", "42 x 32 pixels, the first image has 40 x 32"),
    ),
    "a hole in RGB": (
        leave_out("img_00003.jpg"),
        *("frames-missing", "img_00003 is missing, img_00005 is there"),
    ),
    "the first image gone": (
        leave_out("img_00000.jpg"),
        *("frames-missing", "img_00000 is missing, img_00005 is there"),
    ),
    "the last image gone": (
        leave_out("img_00005.jpg"),
        *("frames-missing", "5 RGB images and 5 flow images of x, style denseflow has 4"),
    ),
    "a flow image less": (
        leave_out("flow_y_00004.jpg"),
        *("frames-missing", "4 flow images of y, style denseflow has 5"),
    ),
    "both flows less": (
        leave_out("flow_x_00004.jpg", "flow_y_00004.jpg"),
        *("frames-missing", "4 flow images of x, style denseflow has 5"),
    ),
    "a hole in flow": (
        lambda f: (f / "flow_x_00002.jpg").rename(f / "flow_x_00009.jpg"),
        *("frames-missing", "flow_x_00002 is missing, flow_x_00009 is there"),
    ),
    "two of a number": (
        lambda f: shutil.copy(f / "img_00001.jpg", f / "img_00001.png"),
        *("frames-missing", "have one number"),
    ),
    "nothing yet": (
        leave_only,
        *("frames-missing", "no RGB image as style denseflow calls them"),
    ),
    "a huge claim": (
        lambda f: (f / "img_00000.jpg").write_bytes(png_that_claims(60000, 60000)),
        *("too-large", "60000x60000"),
    ),
    "a damaged PNG": (
        lambda f: flip_a_byte(f / "img_00001.jpg"),
        *("decode-error", "the PNG is damaged"),
    ),
    "one frame": (lambda f: leave_only(f, "img_00000.jpg"), "too-short", "a flow needs two"),
}


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory, cli: Any) -> tuple[Path, Path]:
    """(folders that are damaged one way each and one that is not, what became of them)."""
    root = tmp_path_factory.mktemp("damaged")
    source = extracted(root / "frames", "denseflow", "whole", *DAMAGES, suffix=".jpg")
    for what, (damage, _, _) in DAMAGES.items():
        damage(source / what)
    options = ("--style", "denseflow", "--out", root / "shards", *PLAIN)
    result = cli("import", "rawframes", source, *options)
    assert result.exit_code == 3, result.output
    assert [row.path for _, row in load_index(Layout(root / "shards").index)] == ["whole"]
    return source, root / "shards"


@pytest.mark.parametrize("what", DAMAGES)
def test_what_does_not_fit_is_a_failure_with_a_reason(
    damaged: tuple[Path, Path], what: str
) -> None:
    _, reason, said = DAMAGES[what]
    failures = {f.path: f for _, f in load_failures(Layout(damaged[1]).failures)}
    assert failures[what].reason == reason
    assert said in failures[what].message


@pytest.mark.slow
def test_what_was_mended_is_tried_again(
    damaged: tuple[Path, Path], tmp_path: Path, cli: Any
) -> None:
    source, out = tmp_path / "frames", tmp_path / "shards"
    shutil.copytree(damaged[0], source)
    shutil.copytree(damaged[1], out)
    shutil.rmtree(source / "half an image")
    extracted(source, "denseflow", "half an image", suffix=".jpg")
    options = ("--style", "denseflow", "--out", out, *PLAIN, "--retry-failed")
    result = cli("import", "rawframes", source, *options)
    assert result.exit_code == 3
    assert {r.path for _, r in load_index(Layout(out).index)} == {"whole", "half an image"}
    assert cli("verify", out, "--deep").exit_code == 0


def tree(out: Path) -> dict[str, bytes]:
    """The shards, their marks and tables, but for the place of the source."""
    files = [p for p in out.rglob("*") if p.is_file() and p != Layout(out).runs]
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory, cli: Any) -> tuple[Path, Path]:
    """Twelve folders of MARS and their shards."""
    root = tmp_path_factory.mktemp("imported")
    source = extracted(root / "frames", "mars", *(f"c{i % 2}/v{i}" for i in range(12)))
    out = root / "shards"
    result = cli("import", "rawframes", source, "--style", "mars", "--out", out, *PLAIN)
    assert result.exit_code == 0, result.output
    return source, out


def test_a_killed_import_goes_on(imported: tuple[Path, Path], tmp_path: Path) -> None:
    source, undisturbed = imported
    out = tmp_path / "shards"
    command = [sys.executable, "-m", "flowprep", "import", "rawframes", str(source)]
    command += ["--style", "mars", "--out", str(out), *map(str, PLAIN)]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not list(out.glob("_flowprep/shards/*.json")) and time.monotonic() < deadline:
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
    n_made = len(list(out.glob("_flowprep/shards/*.json")))
    assert 1 <= n_made < len(list(undisturbed.glob("*.tar")))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert tree(out) == tree(undisturbed)


def test_a_damaged_shard_and_manifest_are_made_again_from_the_images(
    imported: tuple[Path, Path], tmp_path: Path, cli: Any
) -> None:
    _, undisturbed = imported
    out = tmp_path / "shards"
    shutil.copytree(undisturbed, out)
    tar = sorted(out.glob("*.tar"))[0]
    tar.write_bytes(tar.read_bytes()[:1000])
    Layout(out).manifest.write_bytes(b"damaged")
    result = cli("verify", out, "--repair", "--executor", "local", "--workers", 1)
    assert result.exit_code == 0, result.output
    assert tree(out) == tree(undisturbed)


def test_recompute_sees_images_in_another_order(
    imported: tuple[Path, Path], tmp_path: Path, cli: Any
) -> None:
    source, undisturbed = imported
    moved = tmp_path / "frames"
    shutil.copytree(source, moved)
    for folder in moved.glob("*/*"):
        shutil.copy(folder / "00001.png", folder / "aside")
        shutil.copy(folder / "00006.png", folder / "00001.png")
        (folder / "aside").rename(folder / "00006.png")
    result = cli("verify", undisturbed, "--recompute", 1, "--src", moved)
    assert result.exit_code == 1, result.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--style", "denseflow", "--fps", "0"), "--fps 0.0 is not usable"),
        (("--style", "denseflow", "--bound", "-1"), "--bound -1 is not usable"),
        (("--style", "denseflow", "--flow-codec", "ffv1-flow16"), "ffv1-flow16"),
    ],
)
def test_bad_orders(tmp_path: Path, cli: Any, options: tuple[str, ...], said: str) -> None:
    source = extracted(tmp_path / "frames", "denseflow", "a")
    result = cli("import", "rawframes", source, "--out", tmp_path / "shards", *options, *PLAIN)
    assert result.exit_code == 2
    assert said in result.output


def test_a_source_without_folders_of_images(tmp_path: Path, cli: Any) -> None:
    options = ("--style", "tsn", "--out", tmp_path / "shards", *PLAIN)
    result = cli("import", "rawframes", tmp_path / "nowhere", *options)
    assert (result.exit_code, "no such file or folder" in result.output) == (2, True)
    (tmp_path / "a.txt").touch()
    result = cli("import", "rawframes", tmp_path / "a.txt", *options)
    assert (result.exit_code, "is not a folder" in result.output) == (2, True)
    (tmp_path / "videos" / "walk").mkdir(parents=True)
    (tmp_path / "videos" / "walk" / "a.mp4").touch()
    result = cli("import", "rawframes", tmp_path / "videos", *options)
    assert (result.exit_code, "no folder of images in it" in result.output) == (2, True)
    assert not (tmp_path / "shards").exists()


def test_the_engine_of_an_import_is_for_imports_only(
    imported: tuple[Path, Path], tmp_path: Path, cli: Any
) -> None:
    with pytest.raises(FlowprepError, match="flowprep import rawframes"):
        Settings(engine="imported")
    source, out = imported
    result = cli("extract", "--src", source, "--out", out, *PLAIN)
    assert result.exit_code == 2


def test_datasets_of_videos_keep_their_fingerprint() -> None:
    """What was extracted before there were imports can still be verified and gone on with."""
    assert Settings(engine="cpu").fingerprint() == "5c84dd2b34797c9d"


def test_labels_and_splits_from_the_lists_of_an_export(
    exported: Callable[..., Path], tmp_path: Path, cli: Any
) -> None:
    """Of both styles: paths below the folder, and paths as they are opened."""
    for style, names in (("denseflow", ("ride_bike/a", "walk/c")), ("tsn", ("a", "c"))):
        out = exported("--to", "rawframes", "--style", style, "--image", "png")
        shards = tmp_path / style
        lists = [f"--list={split}={out / f'{split}_rgb.txt'}" for split in ("train", "val")]
        options = ("--style", style, "--out", shards, "--classes", out / "classes.txt", *PLAIN)
        result = cli("import", "rawframes", out / "rawframes", *lists, *options)
        assert result.exit_code == 0, result.output
        rows = {row.path: row for _, row in load_index(Layout(shards).index)}
        assert len(rows) == 3
        assert (rows[names[0]].label, rows[names[0]].split) == ("ride bike", "train")
        assert (rows[names[1]].label, rows[names[1]].split) == ("walk", "val")


def test_a_list_that_names_no_folder_or_is_none(tmp_path: Path, cli: Any) -> None:
    source = extracted(tmp_path / "frames", "denseflow", "a")
    listed = tmp_path / "list.txt"
    options = (f"--list=train={listed}", "--style", "denseflow", *PLAIN)
    for number, (text, code, said) in enumerate(
        [
            ("a 6 10\ngone 6 2\n", 3, "gone"),
            ("a 6\n", 2, "list.txt, line 1"),
            ("../frames/../b 6 1\n", 2, "is not below"),
            ("a 6 1\na 6 2\n", 2, "is listed twice"),
        ]
    ):
        listed.write_text(text)
        out = tmp_path / f"shards{number}"
        result = cli("import", "rawframes", source, "--out", out, *options)
        assert (result.exit_code, said in result.output) == (code, True), result.output
    rows = [row for _, row in load_index(Layout(tmp_path / "shards0").index)]
    assert [(row.label, row.label_index) for row in rows] == [("10", 10)]


def test_lists_and_classes_as_windows_writes_them(tmp_path: Path, cli: Any) -> None:
    source = extracted(tmp_path / "frames", "denseflow", "a")
    listed, classes = tmp_path / "list.txt", tmp_path / "classes.txt"
    options = (f"--list=train={listed}", "--classes", classes, "--style", "denseflow", *PLAIN)
    order = ("import", "rawframes", source, "--out", tmp_path / "shards", *options)
    for path, other in ((listed, classes), (classes, listed)):
        path.write_bytes("a é 6\n".encode("latin-1"))
        other.write_text("walk\nrun\n" if other == classes else "a 6 1\n")
        result = cli(*order)
        assert result.exit_code == 2
        assert f"{path.name}, line 1: not UTF-8" in result.output
    listed.write_bytes(b"\xef\xbb\xbfa 6 1\r\n")
    classes.write_bytes(b"\xef\xbb\xbfwalk\r\nrun\r\n")
    result = cli(*order)
    assert result.exit_code == 0, result.output
    rows = [row for _, row in load_index(Layout(tmp_path / "shards").index)]
    assert [(row.path, row.label, row.label_index) for row in rows] == [("a", "run", 1)]


FLAGS = (
    "--bound --classes --clip-frames --clip-max --clip-stride --clip-timeout --dry-run --executor "
    "--flow-codec --flow-map --fps --gpu-mem --labels --list --log-json --max-failures --out "
    "--quiet --ray-address --retry-failed --rgb-codec --seed --shard-frames --strict-versions "
    "--style --worker-mem --workers --workers-per-gpu"
)
"""A flag that goes or is renamed breaks scripts: say so in CHANGELOG.md."""


def test_the_flags_of_an_import_stay() -> None:
    options = [p for p in rawframes.params if isinstance(p, click.Option)]
    assert {flag for option in options for flag in option.opts} == set(FLAGS.split())
    assert [option.name for option in options if not option.help] == []
