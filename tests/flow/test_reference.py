"""The oracle itself: against OpenCV's CPU code, against closed forms, against its stop rule."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import floor
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowprep.errors import FlowprepError
from flowprep.flow.base import TVL1Params
from flowprep.flow.opencv import OpenCVCpu
from flowprep.flow.reference import (
    RULES,
    Reference,
    check_always,
    check_on_schedule,
    iterate,
    solve_level,
)
from flowprep.flow.reference_steps import level_sizes_HW, pyramid, upscale_flow, warp_back
from flowprep.synth import Motion, render

INSTALLED = "cpu5" if int(cv2.__version__.split(".")[0]) >= 5 else "cpu"
MOTIONS = {
    "shift": Motion(dx_px=1.3, dy_px=-0.7),
    "turn": Motion(rotate_deg=2.0),
    "zoom": Motion(zoom=1.03, dx_px=0.5),
    "fast": Motion(dx_px=5.5, dy_px=3.25),
}


def rendered_pair(motion: Motion, height: int, width: int) -> np.ndarray:
    return np.stack(
        [cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in render(motion, 2, height, width, seed=1)]
    )


def epe_against_cv2(gray: np.ndarray, **params: float) -> np.ndarray:
    ours = Reference(rules=INSTALLED, **params).compute(gray)[0]
    return np.hypot(*(ours - OpenCVCpu(**params).compute(gray)[0]))


# --- against cv2 on the CPU ---


@pytest.mark.parametrize("motion", MOTIONS.values(), ids=MOTIONS)
def test_cpu_rules_meet_upstreams_own_bar_against_cv2(motion: Motion) -> None:
    epe = epe_against_cv2(rendered_pair(motion, 96, 128))
    assert (epe <= 0.1).mean() >= 0.95
    assert epe.mean() < 0.03
    assert np.median(epe) < 0.01


@pytest.mark.parametrize("motion", MOTIONS.values(), ids=MOTIONS)
@pytest.mark.parametrize(("n_scales", "median", "p95"), [(1, 1e-5, 5e-3), (2, 1e-3, 1e-2)])
def test_cpu_rules_equal_cv2_to_rounding_on_few_levels(
    motion: Motion, n_scales: int, median: float, p95: float
) -> None:
    """Five levels amplify the difference of float32 and float64 (and OpenCV 4's table steps)."""
    epe = epe_against_cv2(rendered_pair(motion, 61, 83), n_scales=n_scales)
    assert np.median(epe) < median
    assert np.quantile(epe, 0.95) < p95


def test_cpu_rules_equal_cv2_with_other_parameters() -> None:
    params = dict(tau=0.2, lambda_=0.07, theta=0.4, scale_step=0.5, n_warps=3, epsilon=0.03)
    epe = epe_against_cv2(rendered_pair(MOTIONS["turn"], 72, 96), n_scales=2, **params)
    assert np.median(epe) < 1e-3
    assert np.quantile(epe, 0.95) < 1e-2


@pytest.mark.shared
def test_cpu_rules_meet_upstreams_own_bar_on_a_real_pair(shared: Path) -> None:
    frames = [cv2.imread(str(shared / "pairs" / f"I{i}.png"), cv2.IMREAD_GRAYSCALE) for i in (0, 1)]
    small = np.stack([cv2.resize(f, (128, 128), interpolation=cv2.INTER_AREA) for f in frames])
    epe = epe_against_cv2(small)
    assert (epe <= 0.1).mean() >= 0.95


# --- pyramid ---


def test_level_sizes_of_the_usual_frame() -> None:
    assert level_sizes_HW(256, 340, 5, 0.8) == [
        (256, 340), (205, 272), (164, 218), (131, 174), (105, 139)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("size_HW", "step", "levels"),
    [
        ((20, 40), 0.8, [(20, 40), (16, 32)]),  # 13 rows would be too few
        ((40, 19), 0.8, [(40, 19)]),  # 15 columns would be too few
        ((33, 35), 0.5, [(33, 35), (16, 18)]),  # halves go to the even number
    ],
)
def test_levels_under_16_px_are_dropped_and_halves_go_to_even(
    size_HW: tuple[int, int], step: float, levels: list[tuple[int, int]]
) -> None:
    assert level_sizes_HW(*size_HW, 5, step) == levels


@pytest.mark.parametrize(("rules", "centre"), [("cuda", 0.0), ("cpu", 0.5), ("cpu5", 0.5)])
def test_a_resize_samples_a_ramp_where_the_rule_says(rules: str, centre: float) -> None:
    y, x = np.mgrid[:40, :50]
    ramp = (2 * x + 3 * y).astype(np.uint8)
    level = pyramid(ramp, TVL1Params(n_scales=2), RULES[rules])[1]
    y, x = np.mgrid[:32, :40]
    expected = 2 * ((x + centre) * 1.25 - centre) + 3 * ((y + centre) * 1.25 - centre)
    np.testing.assert_allclose(level, expected, atol=1e-4)


def test_flow_is_upscaled_by_the_true_ratio_and_multiplied_by_1_25() -> None:
    """100 columns from 79: sampled every 0.79 px, though the scale step is 0.8."""
    y, x = np.mgrid[:31, :79].astype(float)
    fine = upscale_flow(np.stack([x, y]), (40, 100), TVL1Params(), RULES["cuda"])
    u, v = np.minimum(np.arange(100) * 0.79, 78), np.minimum(np.arange(40) * 0.775, 30)
    np.testing.assert_allclose(fine[0, 5], u * 1.25, atol=1e-4)
    np.testing.assert_allclose(fine[1, :, 5], v * 1.25, atol=1e-4)


# --- warp ---


def shifted_rows(row: np.ndarray, shift: float, rules: str) -> np.ndarray:
    """A one-dimensional signal, the same in 6 rows, moved by the warp."""
    flow = np.zeros((2, 6, len(row)))
    flow[0] = shift
    return warp_back([np.tile(row, (6, 1))], flow, RULES[rules])[0][3]


@pytest.mark.parametrize("t", [0.0, 0.25, 0.3, 0.5, 0.71])
def test_cuda_warp_of_a_cubic_is_the_cubic_plus_its_known_error(t: float) -> None:
    """Central differences of x^3 are 3 x^2 + 1, so Hermite's form leaves t (1 - t) (1 - 2 t)."""
    x = np.arange(-8.0, 9.0)
    warped = shifted_rows(x**3, t, "cuda")
    np.testing.assert_allclose(
        warped[1:-2], (x[1:-2] + t) ** 3 + t * (1 - t) * (1 - 2 * t), atol=1e-9
    )


@pytest.mark.parametrize(("rules", "slope"), [("cuda", 0.5), ("cpu", 0.75), ("cpu5", 0.75)])
def test_the_warp_is_hermites_cubic_with_the_slope_of_its_rule(rules: str, slope: float) -> None:
    values, t = np.random.default_rng(0).uniform(0, 255, 20), 0.3
    at = round(t * 32) / 32 if rules == "cpu" else t
    f, m = values, np.zeros(20)
    m[1:-1] = slope * (values[2:] - values[:-2])
    hermite = (
        (2 * at**3 - 3 * at**2 + 1) * f[1:-2]
        + (at**3 - 2 * at**2 + at) * m[1:-2]
        + (3 * at**2 - 2 * at**3) * f[2:-1]
        + (at**3 - at**2) * m[2:-1]
    )
    np.testing.assert_allclose(shifted_rows(values, t, rules)[1:-2], hermite, atol=1e-9)


@pytest.mark.parametrize("shift", [-30.0, -29.5, 30.25])
def test_outside_the_frame_cuda_sees_the_border_and_the_cpu_sees_black(shift: float) -> None:
    values = np.random.default_rng(0).uniform(50, 255, 20)
    border = values[0] if shift < 0 else values[-1]
    np.testing.assert_allclose(shifted_rows(values, shift, "cuda"), border)
    np.testing.assert_array_equal(shifted_rows(values, shift, "cpu"), 0)


def test_warp_follows_u_along_x_and_v_along_y() -> None:
    y, x = np.mgrid[:12, :15].astype(float)
    flow = np.stack([np.full_like(x, 1.5), np.full_like(x, -2.0)])
    warped = warp_back([3 * x + 100 * y], flow, RULES["cuda"])[0]
    np.testing.assert_allclose(warped[4, 4], 3 * 5.5 + 100 * 2)


# --- stop rule ---


def play(
    errors: list[float], limit: float, due: Callable[[int, float, float], bool]
) -> tuple[int, tuple[tuple[int, float], ...]]:
    remaining = iter(errors)
    return iterate(lambda: next(remaining), limit, len(errors), due)


@given(
    st.lists(st.integers(0, 40).map(lambda e: e + 0.5), min_size=1, max_size=200),
    st.sampled_from([0.25, 1.0, 3.0]),
)
def test_checks_come_where_the_derived_formula_says(errors: list[float], limit: float) -> None:
    """First at n = 1; after a check that found E > S, 2 k later with k = floor(E / 2S) + 1."""
    expected, n, done = [], 1, len(errors)
    while n < len(errors):
        expected.append((n, errors[n]))
        if errors[n] <= limit:
            done = n + 1
            break
        n += 2 * (floor(errors[n] / (2 * limit)) + 1)
    assert play(errors, limit, check_on_schedule) == (done, tuple(expected))


def test_without_a_limit_cuda_never_checks() -> None:
    assert play([0.0] * 50, 0.0, check_on_schedule) == (50, ())


def test_the_cpu_checks_every_iteration() -> None:
    errors = [5.0, 4.0, 1.5, 1.0, 0.1]
    assert play(errors, 1.0, check_always) == (4, tuple(enumerate(errors[:4])))


def test_a_real_solve_keeps_to_the_schedule() -> None:
    gray = rendered_pair(MOTIONS["fast"], 48, 64)
    solution = Reference().solve(*gray)
    sizes = level_sizes_HW(48, 64, 5, 0.8)
    for warp in solution.trace:
        limit = 1e-4 * np.prod(sizes[warp.level])
        assert warp.checks[0][0] == 1
        for (n, error), (following, _) in pairwise(warp.checks):
            assert error > limit
            assert following - n == 2 * (floor(error / (2 * limit)) + 1)
        stopped = warp.checks[-1][1] <= limit
        assert warp.n_iterations == (warp.checks[-1][0] + 1 if stopped else 300)


def test_counts_have_the_full_size_in_row_0() -> None:
    solution = Reference(n_warps=3).solve(*rendered_pair(MOTIONS["shift"], 48, 64))
    assert solution.counts_LW.shape == (5, 3)
    for warp in solution.trace:
        assert solution.counts_LW[warp.level, warp.warp] == warp.n_iterations


@pytest.mark.parametrize(("rules", "count"), [("cuda", 2), ("cpu", 1), ("cpu5", 1)])
def test_identical_frames_stop_at_the_first_check(rules: str, count: int) -> None:
    frame = rendered_pair(MOTIONS["shift"], 40, 48)[0]
    assert (Reference(rules=rules).solve(frame, frame).counts_LW == count).all()


def test_the_dual_variable_survives_from_warp_to_warp() -> None:
    """On equal flat frames with a step in the flow, the data term is off and u diffuses. Two warps
    of n iterations are then the same as one of 2n, which they are only if p goes on."""
    flat = np.zeros((20, 20))
    flow = np.zeros((2, 20, 20))
    flow[:, :, 10:] = 4.0

    def diffused(**params: int) -> np.ndarray:
        return solve_level((flat, flat), flow, TVL1Params(epsilon=0, **params), RULES["cuda"])[0]

    one_warp = diffused(n_warps=1, n_iterations=12)
    np.testing.assert_array_equal(diffused(n_warps=2, n_iterations=6), one_warp)
    assert np.abs(one_warp - flow).max() > 0.1


# --- as an engine ---


def test_the_three_rules_are_three_references() -> None:
    gray = rendered_pair(MOTIONS["turn"], 48, 64)
    flows = [Reference(rules=rules).compute(gray) for rules in RULES]
    assert all(np.abs(a - b).mean() > 1e-3 for a, b in pairwise(flows))


def test_unknown_rules_and_parameters_are_named() -> None:
    with pytest.raises(FlowprepError, match="gpu") as unknown_rules:
        Reference(rules="gpu")
    assert "cuda" in unknown_rules.value.hint
    with pytest.raises(FlowprepError, match="nscales = 3") as unknown_name:
        Reference(nscales=3)
    assert "n_scales" in unknown_name.value.hint
