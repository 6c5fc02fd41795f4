"""Rendered motion: the flow is the closed form, and the frames really move by it."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from flowprep.synth import Motion, render, render_wave, write_video

ODD = Motion(dx_px=1.2, dy_px=-0.6, rotate_deg=1.5, zoom=1.01)
HEIGHT, WIDTH = 60, 81


def luma(rgb_THW3: np.ndarray) -> np.ndarray:
    return rgb_THW3.mean(axis=3).astype(np.float32)


def test_flow_of_a_turn_zoom_and_shift_is_the_complex_product() -> None:
    """z -> c + s e^(i a) (z - c) + d, clockwise on a screen whose y points down."""
    motion = Motion(dx_px=2.0, dy_px=-1.0, rotate_deg=30, zoom=1.5)
    flow = motion.flow_T2HW(2, HEIGHT, WIDTH)[0]
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    z, centre = x + 1j * y, 40.0 + 29.5j
    expected = centre + 1.5 * np.exp(1j * np.pi / 6) * (z - centre) + (2 - 1j) - z
    np.testing.assert_allclose(flow[0] + 1j * flow[1], expected, atol=1e-4)


def test_flow_grows_with_acceleration_and_shears_along_x() -> None:
    flow = Motion(dx_px=1, ddx_px=0.5, ddy_px=-0.25).flow_T2HW(4, 8, 9)
    assert flow[:, 0, 2, 3].tolist() == [1, 1.5, 2]
    assert flow[:, 1, 2, 3].tolist() == [0, -0.25, -0.5]
    sheared = Motion(shear=0.1).flow_T2HW(2, 21, 9)[0]
    np.testing.assert_allclose(sheared[0, :, 4], 0.1 * (np.arange(21) - 10), atol=1e-6)
    np.testing.assert_allclose(sheared[1], 0, atol=1e-6)


def test_a_wave_moves_frame_0_onto_frame_1() -> None:
    frames, flow = render_wave(HEIGHT, WIDTH, amplitude_px=4.5)
    before, after = luma(frames)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    back = cv2.remap(after, x + flow[0], y, cv2.INTER_CUBIC)
    assert np.abs(back - before)[:, 6:-6].mean() < 1.5
    assert np.abs(flow[0]).max() == pytest.approx(4.5, abs=0.01)
    assert not flow[1].any()


@pytest.mark.parametrize(
    "motion",
    [
        ODD,
        Motion(dx_px=0.37, dy_px=2.5),
        Motion(dx_px=-4, ddx_px=4, rotate_deg=-8),
        Motion(dx_px=1.5, shear=0.02, zoom=0.97),
    ],
)
def test_every_pixel_keeps_its_brightness_along_the_flow(motion: Motion) -> None:
    gray = luma(render(motion, 4, HEIGHT, WIDTH, seed=3))
    flows = motion.flow_T2HW(4, HEIGHT, WIDTH)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    inside = np.s_[16:-16, 16:-16]
    for before, after, (u, v) in zip(gray[:-1], gray[1:], flows, strict=True):
        followed = cv2.remap(after, x + u, y + v, cv2.INTER_CUBIC)
        error = np.abs(followed - before)[inside].mean()
        assert error < 0.8  # two roundings to 8 bits and the remap's own error
        assert np.abs(after - before)[inside].mean() > 8 * error


def test_standing_still_gives_equal_frames_and_no_flow() -> None:
    frames = render(Motion(), 3, HEIGHT, WIDTH)
    assert (frames == frames[0]).all()
    assert not Motion().flow_T2HW(3, HEIGHT, WIDTH).any()


def test_the_seed_decides_the_picture() -> None:
    first = render(ODD, 2, HEIGHT, WIDTH, seed=1)
    assert np.array_equal(first, render(ODD, 2, HEIGHT, WIDTH, seed=1))
    assert np.abs(luma(first) - luma(render(ODD, 2, HEIGHT, WIDTH, seed=2))).mean() > 20


@pytest.mark.parametrize("seed", range(4))
def test_there_is_contrast_at_every_level_of_a_pyramid(seed: int) -> None:
    gray = luma(render(Motion(), 1, 256, 340, seed))[0]
    for shrink in (1, 2, 4, 8):
        level = cv2.resize(gray, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
        assert np.abs(np.diff(level, axis=1)).mean() > 4
        assert np.abs(np.diff(level, axis=0)).mean() > 4
    assert np.isin(gray, (0, 255)).mean() < 0.01


@pytest.mark.parametrize(
    ("codec", "suffix", "pix_fmt"),
    [
        ("libx264", "mp4", "yuv420p"),
        ("libx264", "mkv", "yuv444p"),
        ("mpeg4", "avi", "yuv420p"),
        ("libvpx-vp9", "webm", "yuv420p"),
    ],
)
def test_a_written_video_decodes_to_its_frames(
    codec: str, suffix: str, pix_fmt: str, tmp_path: Path
) -> None:
    frames = render(ODD, 7, 64, 80)
    path = tmp_path / f"video.{suffix}"
    write_video(path, frames, Fraction(30000, 1001), codec=codec, crf=10, pix_fmt=pix_fmt)
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)
        decoded = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert np.shape(decoded) == frames.shape
    assert np.abs(luma(np.stack(decoded)) - luma(frames)).mean() < 6


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    """Widths of all residues: x264's mbtree, left on, gives several files within these runs."""
    frames = render(ODD, 12, 128, 170)
    for width in (160, 168, 170):
        written = set()
        for _ in range(8):
            write_video(tmp_path / "video.mp4", frames[:, :, :width], 25)
            written.add((tmp_path / "video.mp4").read_bytes())
        assert len(written) == 1


def test_odd_sides_need_full_chroma(tmp_path: Path) -> None:
    frames = render(ODD, 2, 65, 81)
    with pytest.raises(ValueError, match="yuv444p"):
        write_video(tmp_path / "odd.mp4", frames, 25)
    write_video(tmp_path / "odd.mp4", frames, 25, pix_fmt="yuv444p")
    with av.open(str(tmp_path / "odd.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (81, 65)


def test_importing_synth_imports_no_decoder() -> None:
    check = "import flowprep.synth, sys; sys.exit('av' in sys.modules or 'cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
