"""Sizes, resizing and gray against arithmetic written out here."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from flowprep.decode.geometry import resize, target_size, to_gray


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((320, 240), (342, 256)),  # 341.33
        ((340, 256), (340, 256)),
        ((1920, 1080), (456, 256)),  # 455.11
        ((1080, 1920), (256, 456)),
        ((321, 241), (340, 256)),  # 340.98
        ((256, 256), (256, 256)),
        ((2, 2), (256, 256)),
        ((4, 2), (512, 256)),
        ((480, 360), (342, 256)),
        ((1280, 544), (602, 256)),  # 602.35
        ((341, 256), (342, 256)),  # exactly odd: up
        ((256, 343), (256, 344)),
    ],
)
def test_the_short_side_becomes_256_and_the_long_side_even(size, expected):
    assert target_size(*size, 256) == expected


def test_an_odd_short_side_is_kept_as_asked_for():
    assert target_size(90, 45, 45) == (90, 45)
    assert target_size(7, 7, 5) == (5, 5)


def test_native_size_is_untouched_even_when_odd():
    assert target_size(321, 241, None) == (321, 241)


def test_the_sample_aspect_ratio_widens_before_the_short_side_is_found():
    assert target_size(720, 576, 256, sar=Fraction(64, 45)) == (456, 256)  # shown at 1024x576
    assert target_size(720, 576, 256, sar=Fraction(8, 15)) == (256, 384)  # shown at 384x576
    assert target_size(720, 576, None, sar=Fraction(64, 45)) == (1024, 576)


def test_area_shrinks_to_the_mean_of_each_block():
    rgb = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    blocks = rgb.reshape(15, 4, 20, 4, 3).mean((1, 3))
    got = resize(rgb, 20, 15, "area").astype(float)
    assert np.abs(got - blocks).max() <= 0.51


def test_area_enlarges_linearly():
    ramp = np.repeat(np.array([[0, 100, 200]], np.uint8), 3, axis=0)[:, :, None].repeat(3, 2)
    got = resize(ramp, 6, 3, "area")[1, :, 0]
    assert got.tolist() == [0, 25, 75, 125, 175, 200]  # samples at (i + 0.5) / 2 - 0.5


def test_area_averages_the_axis_that_shrinks_while_the_other_grows():
    stripes = np.zeros((4, 8, 3), np.uint8)
    stripes[:, ::2] = 200
    got = resize(stripes, 4, 8, "area")
    assert got.shape == (8, 4, 3)
    assert np.all(got == 100)


def test_cv2_linear_skips_pixels_when_shrinking():
    stripes = np.zeros((16, 16, 3), np.uint8)
    stripes[:, ::4] = 200
    assert np.all(resize(stripes, 4, 4, "area") == 50)
    assert np.all(resize(stripes, 4, 4, "cv2-linear") == 0)  # samples between columns 1 and 2


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match="cubic"):
        resize(np.zeros((4, 4, 3), np.uint8), 2, 2, "cubic")  # type: ignore[arg-type]


def test_gray_is_bt601_luma_of_rgb_order():
    rgb = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    luma = rgb @ np.array([0.299, 0.587, 0.114])
    gray = to_gray(rgb)
    assert gray.dtype == np.uint8
    assert np.abs(gray - luma).max() <= 1
    assert to_gray(np.full((2, 2, 3), 255, np.uint8)).tolist() == [[255, 255], [255, 255]]
