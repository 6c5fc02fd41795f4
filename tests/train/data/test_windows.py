"""Where windows lie, and what is cut out, on arrays whose content tells the place."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from flowprep.errors import FlowprepError
from train.data import windows
from train.data.windows import (
    Crop,
    WindowConfig,
    even_crops,
    even_starts,
    flows_at,
    frames_at,
    random_crop,
    random_start,
)


def cut_rgb(config: WindowConfig, rgb_HW3: np.ndarray, crop: Crop) -> np.ndarray:
    out = np.full((config.crop, config.crop, 3), 77, np.uint8)
    windows.cut_rgb(config, rgb_HW3, crop, out)
    return out


def cut_flow(
    config: WindowConfig, codes_HW: np.ndarray, zero: float, step: float, crop: Crop
) -> np.ndarray:
    out = np.full((2, config.crop, config.crop), np.nan, np.float32)
    windows.cut_flow(config, codes_HW, zero, step, crop, out)
    return out


def test_a_window_takes_every_stride_th_frame() -> None:
    config = WindowConfig(frames=4, stride=3)
    assert config.span == 10
    assert frames_at(config, 100, 5).tolist() == [5, 8, 11, 14]


def test_short_clips_loop() -> None:
    config = WindowConfig(frames=7, stride=2)
    assert frames_at(config, 5, 0).tolist() == [0, 2, 4, 1, 3, 0, 2]


def test_the_last_frame_has_the_flow_before_it() -> None:
    assert flows_at(np.array([2, 3, 4]), 5).tolist() == [2, 3, 3]
    assert flows_at(np.array([0, 1, 0]), 2).tolist() == [0, 0, 0]


@pytest.mark.parametrize("n_frames", [0, 1])
def test_a_clip_without_flow_is_refused(n_frames: int) -> None:
    with pytest.raises(ValueError, match=f"clip of {n_frames} frames"):
        frames_at(WindowConfig(), n_frames, 0)


def test_every_start_is_drawn_and_no_other() -> None:
    rng = np.random.default_rng(0)
    config = WindowConfig(frames=4, stride=2)
    counts = Counter(random_start(config, 10, rng) for _ in range(4000))
    assert sorted(counts) == [0, 1, 2, 3]
    assert min(counts.values()) > 850
    assert random_start(config, 7, rng) == random_start(config, 3, rng) == 0


def test_even_starts_go_from_end_to_end() -> None:
    config = WindowConfig(frames=10)
    assert even_starts(config, 110, 1) == [50]
    assert even_starts(config, 110, 5) == [0, 25, 50, 75, 100]
    assert even_starts(config, 9, 3) == [0, 0, 0]


def test_even_crops_go_along_the_long_side() -> None:
    config = WindowConfig(crop=20)
    assert even_crops(config, 30, 60, 1) == [Crop(5, 20)]
    assert even_crops(config, 30, 60, 3) == [Crop(5, 0), Crop(5, 20), Crop(5, 40)]
    assert even_crops(config, 60, 30, 3) == [Crop(0, 5), Crop(20, 5), Crop(40, 5)]
    assert even_crops(WindowConfig(resize=40, crop=20), 30, 60, 2) == [Crop(10, 0), Crop(10, 60)]


def test_random_crops_reach_every_corner() -> None:
    rng = np.random.default_rng(0)
    crops = [random_crop(WindowConfig(crop=8, hflip=True), 10, 9, rng) for _ in range(300)]
    assert {(c.top, c.left) for c in crops} == {(y, x) for y in range(3) for x in range(2)}
    assert 100 < sum(c.flip for c in crops) < 200
    assert not any(random_crop(WindowConfig(crop=8), 10, 9, rng).flip for _ in range(50))


def test_cuts_are_slices() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (12, 15, 3), np.uint8)
    config = WindowConfig(crop=8)
    np.testing.assert_array_equal(cut_rgb(config, rgb, Crop(2, 5)), rgb[2:10, 5:13])
    mirrored = cut_rgb(config, rgb, Crop(2, 5, flip=True))
    np.testing.assert_array_equal(mirrored, rgb[2:10, 5:13][:, ::-1])


@pytest.mark.parametrize(
    ("dtype", "zero", "step"),
    [(np.uint8, 128.0, 20 / 127), (np.uint8, 127.5, 10 / 255), (np.uint16, 32768.0, 1 / 32)],
)
def test_flow_is_clipped_and_divided_by_20(dtype: type, zero: float, step: float) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, np.iinfo(dtype).max + 1, (2 * 10, 12)).astype(dtype)
    px = (codes.astype(np.float64) - zero) * step
    want = np.stack([px[1:9, 3:11], px[11:19, 3:11]]).clip(-20, 20) / 20
    config = WindowConfig(crop=8)
    got = cut_flow(config, codes, zero, step, Crop(1, 3))
    np.testing.assert_allclose(got, want, atol=1e-6)
    flipped = cut_flow(config, codes, zero, step, Crop(1, 3, flip=True))
    np.testing.assert_array_equal(flipped, got[..., ::-1] * np.float32([-1, 1]).reshape(2, 1, 1))


def test_zero_is_exactly_zero() -> None:
    codes = np.full((16, 8), 128, np.uint8)
    for crop in (Crop(0, 0), Crop(0, 0, flip=True)):
        assert not cut_flow(WindowConfig(crop=8), codes, 128, 20 / 127, crop).any()


def test_a_resize_averages_pixels_and_may_scale_flow() -> None:
    codes = np.empty((2 * 8, 16), np.uint8)
    codes[:8] = np.tile([100, 160], 8)
    codes[8:] = 180
    small = WindowConfig(resize=4, crop=4)
    flow = cut_flow(small, codes, 128, 0.25, Crop(0, 2)) * 20
    np.testing.assert_allclose(flow[0], (130 - 128) * 0.25, atol=1e-5)
    np.testing.assert_allclose(flow[1], (180 - 128) * 0.25, atol=1e-5)
    scaling = WindowConfig(resize=4, crop=4, scale_flow=True)
    scaled = cut_flow(scaling, codes, 128, 0.25, Crop(0, 2)) * 20
    np.testing.assert_allclose(scaled, flow / 2, atol=1e-5)
    flipped = cut_flow(scaling, codes, 128, 0.25, Crop(0, 2, flip=True)) * 20
    np.testing.assert_allclose(flipped[0], -scaled[0], atol=1e-5)
    rgb = np.tile(np.array([10, 20], np.uint8)[None, :, None], (8, 4, 3))
    assert np.unique(cut_rgb(small, rgb, Crop(0, 0))).tolist() == [15]


def test_flow_beyond_20_px_is_clipped_after_it_was_scaled() -> None:
    codes = np.full((16, 8), 32768 + 32 * 30, np.uint16)
    config = WindowConfig(resize=4, crop=4, scale_flow=True)
    np.testing.assert_allclose(cut_flow(config, codes, 32768, 1 / 32, Crop(0, 0)), 0.75, atol=1e-6)
    config = WindowConfig(resize=4, crop=4)
    np.testing.assert_array_equal(cut_flow(config, codes, 32768, 1 / 32, Crop(0, 0)), 1)


def test_a_picture_is_enlarged_too() -> None:
    """Interpolated from [0, 100]: a quarter of the way, three quarters of it."""
    rgb = np.tile(np.array([0, 100], np.uint8)[None, :, None], (2, 1, 3))
    enlarged = cut_rgb(WindowConfig(resize=4, crop=4), rgb, Crop(0, 0))
    assert enlarged[0, :, 0].tolist() == [0, 25, 75, 100]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"frames": 0}, "--frames 0"),
        ({"stride": 0}, "--stride 0"),
        ({"crop": 0}, "--crop 0"),
        ({"resize": -1}, "--resize -1"),
        ({"resize": 100, "crop": 101}, "--crop 101 is larger than --resize 100"),
    ],
)
def test_impossible_windows_are_refused(values: dict[str, int], words: str) -> None:
    with pytest.raises(FlowprepError, match=words):
        WindowConfig(**values)
