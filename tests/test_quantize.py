"""The maps between flow and codes, held to properties and to independent integer formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowprep.errors import FlowprepError
from flowprep.quantize import MAPS, Quantizer, make_quantizer

BOUNDS_PX = st.sampled_from([1.0, 7.5, 15.0, 20.0, 32.0, 255.0, 1024.0])
NAMES = st.sampled_from(MAPS)
FLOW_PX = st.floats(-2000, 2000, width=32)


def codes_of(quantizer: Quantizer, values_px: list[float]) -> np.ndarray:
    """The codes of single values, int64 [n]."""
    uv = np.array(values_px, np.float32).reshape(1, 1, 1, -1).repeat(2, axis=1)
    codes = quantizer.encode(uv)
    np.testing.assert_array_equal(codes[0, 0], codes[0, 1])
    return codes[0, 0].astype(np.int64)


def flow_of(quantizer: Quantizer, codes: np.ndarray) -> np.ndarray:
    """The flow in pixels of single codes, float32 [n]."""
    planes = codes.astype(quantizer.dtype).reshape(1, 1, -1).repeat(2, axis=1)
    return quantizer.decode(planes)[0, 0, 0]


@given(BOUNDS_PX)
@pytest.mark.parametrize("name", ["symmetric", "i3d-floor", "int16"])
def test_zero_flow_is_exactly_zero(name: str, bound_px: float) -> None:
    quantizer = make_quantizer(name, bound_px)
    codes = codes_of(quantizer, [0.0, -0.0])
    assert codes.tolist() == [quantizer.zero_code] * 2
    assert flow_of(quantizer, codes).tolist() == [0.0, 0.0]


@given(BOUNDS_PX, st.lists(FLOW_PX, min_size=1, max_size=20))
def test_a_flip_is_256_minus_the_code(bound_px: float, values_px: list[float]) -> None:
    quantizer = make_quantizer("symmetric", bound_px)
    flipped = codes_of(quantizer, [-value for value in values_px])
    np.testing.assert_array_equal(flipped, 256 - codes_of(quantizer, values_px))


@given(NAMES, BOUNDS_PX, st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=20))
def test_error_is_at_most_half_a_code(name: str, bound_px: float, shares: list[float]) -> None:
    quantizer = make_quantizer(name, bound_px)
    flow = np.array(shares, np.float32) * np.float32(min(bound_px, quantizer.bound_px))
    error = flow_of(quantizer, codes_of(quantizer, flow.tolist())) - flow
    assert np.abs(error).max() <= quantizer.px_per_code * 0.5 * (1 + 1e-3)


@given(NAMES, BOUNDS_PX)
def test_codes_survive_a_round_trip(name: str, bound_px: float) -> None:
    quantizer = make_quantizer(name, bound_px)
    codes = np.arange(quantizer.lowest, quantizer.highest + 1, 1 if quantizer.highest < 256 else 97)
    np.testing.assert_array_equal(codes_of(quantizer, flow_of(quantizer, codes).tolist()), codes)


@given(NAMES, BOUNDS_PX, st.lists(FLOW_PX, min_size=2, max_size=20))
def test_order_is_kept_and_codes_stay_in_range(
    name: str, bound_px: float, values_px: list[float]
) -> None:
    quantizer = make_quantizer(name, bound_px)
    codes = codes_of(quantizer, sorted(values_px))
    assert np.all(np.diff(codes) >= 0)
    assert quantizer.lowest <= codes.min()
    assert codes.max() <= quantizer.highest


def test_beyond_the_bound_the_last_code_is_used() -> None:
    values_px = [-1e9, -20.2, -20, 20, 20.2, 1e9]
    assert codes_of(make_quantizer("symmetric", 20), values_px).tolist() == [1, 1, 1, 255, 255, 255]
    assert codes_of(make_quantizer("i3d", 20), values_px).tolist() == [0, 0, 0, 255, 255, 255]
    assert codes_of(make_quantizer("int16", 20), [-1e9, 1e9]).tolist() == [0, 65535]


def test_i3d_floor_is_the_cut_of_mars() -> None:
    """MARS, utils1/extract_frames_flows.py: `((tflow + 20) / 40.0 * 255.0).astype(np.uint8)`, and
    a code is decoded to the middle of the flows that it was cut from. MARS has its last code, 255,
    from 20 px up, we from half a step above.
    """
    quantizer = make_quantizer("i3d-floor", 20)
    values_px = np.random.default_rng(0).uniform(-21, 21, 4000).astype(np.float32)
    values_px = np.append(values_px[np.abs(values_px - 20) > 0.1], np.float32([-20, 0, 21]))
    clipped = np.minimum(20, np.maximum(-20, values_px.astype(np.float64)))
    codes = ((clipped + 20) / 40.0 * 255.0).astype(np.uint8)
    assert codes_of(quantizer, values_px.tolist()).tolist() == codes.tolist()
    lowest_px, next_px = codes * (40 / 255) - 20, (codes + 1.0) * (40 / 255) - 20
    np.testing.assert_allclose(flow_of(quantizer, codes), (lowest_px + next_px) / 2, atol=1e-5)


@pytest.mark.parametrize("bound", [15, 20, 32])
def test_i3d_is_the_cast_of_denseflow(bound: int) -> None:
    """denseflow: cvRound(255 (v - L) / (H - L)) from L = -bound to H = bound, 0 and 255 outside.

    The values are n/64 px, so integers decide: code = floor((2 * 255 (n + 64 b) + 128 b) / 256 b);
    exact halves, which rounding to even treats apart, are left out.
    """
    n = np.arange(-64 * (bound + 2), 64 * (bound + 2) + 1, dtype=np.int64)
    numerator, denominator = 2 * 255 * (n + 64 * bound) + 128 * bound, 256 * bound
    clear = numerator % denominator != 0
    want = np.clip(numerator // denominator, 0, 255)
    got = codes_of(make_quantizer("i3d", bound), (n / 64).tolist())
    np.testing.assert_array_equal(got[clear], want[clear])


def test_symmetric_in_integers() -> None:
    """Values n/64 px at bound 20: round(127 n / 1280), halves left out."""
    n = np.arange(-1500, 1501, dtype=np.int64)
    numerator = 2 * 127 * np.abs(n) + 1280
    clear = numerator % 2560 != 0
    want = 128 + np.sign(n) * np.minimum(numerator // 2560, 127)
    got = codes_of(make_quantizer("symmetric", 20), (n / 64).tolist())
    np.testing.assert_array_equal(got[clear], want[clear])


def test_int16_holds_32nds_exactly() -> None:
    n = np.arange(-32768, 32768, 7, dtype=np.int64)
    quantizer = make_quantizer("int16", 20)
    codes = codes_of(quantizer, (n / 32).tolist())
    np.testing.assert_array_equal(codes, n + 32768)
    np.testing.assert_array_equal(flow_of(quantizer, codes), (n / 32).astype(np.float32))


def test_zero_of_i3d_decodes_to_half_a_code() -> None:
    quantizer = make_quantizer("i3d", 20)
    assert codes_of(quantizer, [0.0]).tolist() == [128]
    assert flow_of(quantizer, np.array([128]))[0] == pytest.approx(20 / 255)


@given(NAMES, st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=30)
def test_dx_stands_above_dy(name: str, n: int, height: int, width: int, seed: int) -> None:
    quantizer = make_quantizer(name, 20)
    uv = np.random.default_rng(seed).uniform(-25, 25, (n, 2, height, width)).astype(np.float32)
    codes = quantizer.encode(uv)
    assert codes.shape == (n, 2 * height, width)
    assert codes.dtype == quantizer.dtype
    np.testing.assert_array_equal(codes[:, :height], quantizer.encode(uv[:, [0, 0]])[:, :height])
    np.testing.assert_array_equal(codes[:, height:], quantizer.encode(uv[:, [1, 1]])[:, :height])
    back = quantizer.decode(codes)
    assert back.dtype == np.float32
    inside = np.clip(uv, -quantizer.bound_px, quantizer.bound_px)
    assert np.abs(back - inside).max() <= quantizer.px_per_code * 0.51


def test_encode_leaves_the_flow_alone() -> None:
    uv = np.random.default_rng(0).uniform(-30, 30, (2, 2, 4, 5)).astype(np.float32)
    before = uv.copy()
    make_quantizer("symmetric", 20).encode(uv)
    np.testing.assert_array_equal(uv, before)


def test_saturated_values_are_counted() -> None:
    uv = np.array([0, 19.9, 20, -20, 20.1, -21, 500, -500], np.float32).reshape(1, 2, 2, 2)
    assert make_quantizer("symmetric", 20).saturated_count(uv) == 4
    assert make_quantizer("int16", 20).saturated_count(uv) == 0


@pytest.mark.parametrize("name", MAPS)
def test_coded_flow_tells_what_its_codes_no_longer_do(name: str) -> None:
    quantizer = make_quantizer(name, 20)
    uv = np.random.default_rng(0).uniform(-10, 10, (3, 2, 50, 70)).astype(np.float32)
    uv[1, :, 7, 9] = -1500, 0.5
    uv[1, :, 49, 69] = 2000, -2000
    coded = quantizer.coded(uv)
    lengths = np.hypot(*np.moveaxis(uv.astype(np.float64), 1, 0))
    np.testing.assert_array_equal(coded.codes, quantizer.encode(uv))
    np.testing.assert_allclose(coded.sum_px, lengths.sum(axis=(1, 2)), rtol=1e-7)
    np.testing.assert_allclose(coded.max_px, lengths.max(axis=(1, 2)), rtol=1e-7)
    assert coded.n_beyond.tolist() == [0, 2, 0]
    assert coded.is_finite()
    assert len(quantizer.coded(uv[:0])) == 0


@pytest.mark.parametrize("bound_px", [0, -1, 1024.5, float("nan"), float("inf")])
def test_impossible_bounds_are_refused(bound_px: float) -> None:
    with pytest.raises(FlowprepError, match="bound"):
        make_quantizer("symmetric", bound_px)


def test_unknown_maps_are_refused() -> None:
    with pytest.raises(FlowprepError, match="symmetric, i3d, i3d-floor, int16"):
        make_quantizer("linear", 20)
