"""Each kernel against the step of the float64 reference that it does, and against itself."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowprep.flow.base import TVL1Params
from flowprep.flow.cpu.engine import program
from flowprep.flow.cpu.jit import Target
from flowprep.flow.cpu.layout import (
    BLOCK_BYTES,
    FIELDS,
    Plane,
    State,
    Taps,
    n_blocks,
)
from flowprep.flow.cpu.resample import Resizer
from flowprep.flow.cpu.simd import VECTOR_BYTES
from flowprep.flow.reference import RULES
from flowprep.flow.reference_steps import (
    DataTerm,
    central_gradient,
    divergence,
    level_sizes_HW,
    linearise,
    pyramid,
    threshold,
    update_dual,
    upscale_flow,
    warp_back,
)

CUDA = RULES["cuda"]
L_T, THETA, TAUT = 0.045, 0.3, 0.25 / 0.3
sides = st.integers(3, 70)
seeds = st.integers(0, 2**32 - 1)


@cache
def host() -> Any:
    return program(Target.host())


def field(state: State, name: str) -> np.ndarray:
    image = np.empty((state.height, state.width), np.float32)
    state.copy_field(name, image)
    return image


def put(state: State, name: str, image: np.ndarray) -> None:
    lanes = np.zeros((state.height, 16 * n_blocks(state.width)), np.float32)
    lanes[:, : state.width] = image
    state.rows[1:-1, 1:, FIELDS.index(name)] = lanes.reshape(state.height, -1, 16)


def plane_of(image: np.ndarray) -> Plane:
    plane = Plane(*image.shape)
    plane.image[...] = image
    plane.repeat_edges()
    return plane


def noise(seed: int, height: int, width: int) -> np.ndarray:
    """uint8 [H, W], rough: neighbours differ by up to the whole range."""
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


def rows_outside(state: State) -> np.ndarray:
    """What must stay zero: left of, above and below the image, and beyond its width."""
    beyond = np.arange(state.width, 16 * n_blocks(state.width))
    blocks = state.rows[1:-1, 1:].transpose(0, 2, 1, 3).reshape(state.height, len(FIELDS), -1)
    parts = (state.rows[:, 0], state.rows[0], state.rows[-1], blocks[..., beyond])
    return np.concatenate([part.ravel() for part in parts])


# --- resample ---


@settings(deadline=None)
@given(st.integers(16, 90), st.integers(16, 90), st.floats(0.3, 0.95), seeds)
def test_shrinking_gives_the_levels_of_the_reference(
    h: int, w: int, scale: float, seed: int
) -> None:
    params = TVL1Params(scale_step=scale, n_scales=3)
    frame = noise(seed, h, w)
    sizes = level_sizes_HW(h, w, 3, scale)
    plane = plane_of(frame)
    for size, want in zip(sizes[1:], pyramid(frame, params, CUDA)[1:], strict=True):
        coarse = Plane(*size)
        shape: Any = plane.image.shape
        Resizer(host(), shape, size, (1 / scale, 1 / scale), VECTOR_BYTES)(plane.grid, coarse.grid)
        np.testing.assert_allclose(coarse.image, want, atol=2e-3)
        plane = coarse


@settings(deadline=None)
@given(sides, sides, st.floats(0.3, 0.95), seeds)
def test_enlarging_flow_is_the_references_step(h: int, w: int, scale: float, seed: int) -> None:
    fine = (round(h / scale), round(w / scale))
    flow = np.random.default_rng(seed).normal(0, 5, (2, h, w)).astype(np.float32)
    coarse_state, fine_state = State(h, w), State(*fine)
    resizer = Resizer(host(), (h, w), fine, (1 / (fine[0] / h), 1 / (fine[1] / w)), BLOCK_BYTES)
    for name, plane in zip("uv", flow, strict=True):
        put(coarse_state, name, plane)
        resizer(coarse_state.grid(name), fine_state.grid(name), 1 / scale)
    want = upscale_flow(flow.astype(np.float64), fine, TVL1Params(scale_step=scale), CUDA)
    got = np.stack([field(fine_state, name) for name in "uv"])
    np.testing.assert_allclose(got, want, atol=1e-3)
    assert not rows_outside(fine_state).any()


# --- taps and linearise ---


def laid_out(image: np.ndarray) -> Taps:
    height, width = image.shape
    taps, plane = (
        Taps(height, width),
        plane_of(image),
    )
    host().taps(
        plane.grid.address,
        plane.grid.row_bytes,
        taps.grid.address,
        taps.grid.row_bytes,
        height,
        n_blocks(width),
    )
    taps.repeat_edges()
    return taps


@settings(deadline=None)
@given(sides, sides, seeds)
def test_taps_are_the_image_and_its_central_differences(h: int, w: int, seed: int) -> None:
    image = noise(seed, h, w).astype(np.float64)
    want = np.stack([image, *central_gradient(image), np.zeros_like(image)], axis=-1)
    padded = np.pad(want, ((3, 3), (3, 3), (0, 0)), mode="edge")
    np.testing.assert_array_equal(laid_out(image)._padded[:, : w + 6], padded)


def linearised(state: State, frame_0: np.ndarray, frame_1: np.ndarray, kernels: Any) -> None:
    plane, taps = plane_of(frame_0), laid_out(frame_1)
    grids = (state.origin, plane.grid, taps.grid)
    where = [number for grid in grids for number in (grid.address, grid.row_bytes)]
    kernels.linearise(*where, state.height, state.width, n_blocks(state.width))


@settings(deadline=None)
@given(sides, sides, st.floats(0, 12), seeds)
def test_the_warp_is_the_references(h: int, w: int, spread_px: float, seed: int) -> None:
    """Flow out of the frame and whole steps included."""
    frames = [noise(seed + n, h, w).astype(np.float64) for n in range(2)]
    flow = np.random.default_rng(seed).normal(0, spread_px, (2, h, w)).astype(np.float32)
    flow[:, ::3] = np.rint(flow[:, ::3])
    state = State(h, w)
    for name, plane in zip("uv", flow, strict=True):
        put(state, name, plane)
    linearised(state, frames[0], frames[1], host())
    exact = flow.astype(np.float64)
    images = [frames[1], *central_gradient(frames[1])]
    want = linearise(frames[0], warp_back(images, exact, CUDA), exact)
    got_g = np.stack([field(state, "gx"), field(state, "gy")])
    np.testing.assert_allclose(got_g, want.gradient_2HW, atol=0.02)
    np.testing.assert_allclose(field(state, "rho_c"), want.rho_c_HW, atol=0.5)
    square = (got_g.astype(np.float64) ** 2).sum(axis=0)
    np.testing.assert_allclose(field(state, "step") * np.maximum(square, 1e-30), -1, rtol=1e-5)
    assert not rows_outside(state).any()


@pytest.mark.parametrize("flow_px", [1e9, -1e9, 3e38, np.inf, -np.inf, np.nan])
def test_a_warp_to_nowhere_reads_inside_the_frame(flow_px: float) -> None:
    frame = noise(0, 20, 35).astype(np.float64)
    state = State(20, 35)
    for name in "uv":
        put(state, name, np.full((20, 35), flow_px))
    linearised(state, frame, frame, host())
    assert not rows_outside(state).any()


def test_where_frame_1_is_nearly_flat_the_step_is_the_references() -> None:
    """|g|^2 on both sides of 1.2e-7, where the reference stops its Newton step."""
    height, width, rng = 24, 40, np.random.default_rng(0)
    ramp = np.arange(width) * np.geomspace(1e-6, 1e-2, height)[:, None]
    frames = [100 + ramp + shift for shift in (0.0, 1e-3)]
    state = State(height, width)
    linearised(state, frames[0], frames[1], host())
    flow = rng.normal(0, 1, (2, height, width)).astype(np.float32)
    for name, plane in zip("uv", flow, strict=True):
        put(state, name, plane)
    want, _, _ = reference_steps(state, 1)
    swept(state, 1, 2, host())
    np.testing.assert_allclose([field(state, name) for name in "uv"], want, atol=1e-6)


# --- sweep ---


def random_state(h: int, w: int, seed: int) -> State:
    rng, state = np.random.default_rng(seed), State(h, w)
    spread = {"gx": 20, "gy": 20, "rho_c": 15, "u": 2, "v": 2}
    for name in FIELDS:
        put(state, name, rng.normal(0, spread.get(name, 0.5), (h, w)))
    p = np.stack([field(state, name) for name in ("p11", "p12", "p21", "p22")])
    for name, plane in zip(("p11", "p12", "p21", "p22"), p / (1 + np.abs(p)), strict=True):
        put(state, name, plane)
    put(state, "p11", field(state, "p11") * (np.arange(w) < w - 1))  # as iterations leave it
    put(state, "p21", field(state, "p21") * (np.arange(w) < w - 1))
    put(state, "step", -1 / (field(state, "gx") ** 2 + field(state, "gy") ** 2))
    return state


def swept(state: State, n: int, wave: int, kernels: Any) -> float:
    origin = state.origin
    size = (state.height, state.width, n_blocks(state.width))
    return kernels.sweep(origin.address, origin.row_bytes, *size, n, wave, L_T, THETA, TAUT)


def reference_steps(state: State, n: int) -> tuple[np.ndarray, np.ndarray, float]:
    """(flow [2, H, W], p [2, 2, H, W], error) after n iterations in float64."""
    fields = {name: field(state, name).astype(np.float64) for name in FIELDS}
    gradient = np.stack([fields["gx"], fields["gy"]])
    data = DataTerm(
        gradient_2HW=gradient, square_HW=(gradient**2).sum(axis=0), rho_c_HW=fields["rho_c"]
    )
    flow = np.stack([fields["u"], fields["v"]])
    p = np.stack([[fields["p11"], fields["p12"]], [fields["p21"], fields["p22"]]])
    error = 0.0
    for _ in range(n):
        change = threshold(data, flow, L_T) + THETA * divergence(p)
        flow = flow + change
        p = update_dual(p, flow, TAUT)
        error = float((change**2).sum())
    return flow, p, error


@settings(deadline=None)
@given(sides, sides, st.integers(1, 7), seeds)
def test_iterations_are_those_of_the_reference(h: int, w: int, n: int, seed: int) -> None:
    state = random_state(h, w, seed)
    flow, p, error = reference_steps(state, n)
    got = swept(state, n, 4, host())
    assert got == pytest.approx(error, rel=1e-3)
    np.testing.assert_allclose([field(state, name) for name in "uv"], flow, atol=2e-4)
    got_p = [[field(state, f"p{c}{axis}") for axis in "12"] for c in "12"]
    np.testing.assert_allclose(got_p, p, atol=2e-4)
    assert not rows_outside(state).any()


@settings(deadline=None)
@given(sides, sides, st.integers(1, 40), st.integers(1, 20), seeds)
def test_the_length_of_the_wave_changes_no_bit(
    h: int, w: int, n: int, wave: int, seed: int
) -> None:
    one_by_one, in_waves = random_state(h, w, seed), random_state(h, w, seed)
    errors = [swept(one_by_one, 1, 1, host()) for _ in range(n)]
    assert swept(in_waves, n, wave, host()) == errors[-1]
    np.testing.assert_array_equal(one_by_one.rows.view(np.uint32), in_waves.rows.view(np.uint32))


def test_the_width_of_the_vectors_changes_no_bit(targets: dict[str, Target]) -> None:
    if len(targets) < 2:
        pytest.skip("this processor knows one width only")
    bits = {}
    for name, target in targets.items():
        state = random_state(61, 83, seed=5)
        frames = [noise(n, 61, 83).astype(np.float64) for n in range(2)]
        linearised(state, *frames, program(target))
        swept(state, 25, 8, program(target))
        bits[name] = state.rows.tobytes()
    assert len(set(bits.values())) == 1, f"{list(bits)} differ"
