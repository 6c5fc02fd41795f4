"""The kernels of engine `cuda`, run on the CPU: against the float64 reference, and bit by bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowprep.flow.base import TVL1Params
from flowprep.flow.reference import RULES, Reference, solve
from flowprep.records import U8
from flowprep.synth import Motion, render

MakeCuda = Callable[..., Any]
NAMED_PAIRS = Path(__file__).parents[2] / "bench" / "flow_pairs.json"
SMALL_DEVICE, LARGE_DEVICE = {"n_workers": 1}, {"n_workers": 10_000}
SIZES = [
    *((16, 16), (17, 31), (3, 3), (3, 500), (500, 3), (33, 47), (40, 63), (40, 64), (40, 65)),
    *((31, 112), (32, 113), (33, 160), (64, 161), (65, 208), (97, 48)),
]  # strips end at 64, 112, 160 columns, bands at 32 rows


def noise_clip(seed: int, n_frames: int, height: int, width: int) -> U8:
    """Smooth random frames that have nothing to do with one another."""
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 256, (n_frames, height, width)).astype(np.float32)
    return np.stack([np.rint(cv2.GaussianBlur(f, (0, 0), 1.5)) for f in raw]).astype(np.uint8)


def shifted_pair(seed: int, height: int, width: int) -> U8:
    """Random texture that moves by (2, 1) px."""
    texture = noise_clip(seed, 1, height + 1, width + 2)[0]
    return np.stack([texture[1:, 2:], texture[:-1, :-2]])


def moving_clip(n_frames: int, height: int, width: int) -> U8:
    motion = Motion(dx_px=-1.5, dy_px=0.75, rotate_deg=1.0)
    rgb_THW3 = render(motion, n_frames, height, width, seed=1)
    return np.stack([cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in rgb_THW3])


def epe(a_2HW: np.ndarray, b_2HW: np.ndarray) -> np.ndarray:
    return np.hypot(*(a_2HW.astype(np.float64) - b_2HW))


def solve_pair(engine: Any, gray: U8) -> tuple[np.ndarray, np.ndarray]:
    ((_, solved),) = engine.solve([gray])
    return solved.out[0], solved.counts_PLW[0]


# --- against the reference ---


@pytest.mark.parametrize("numerics", ["fast", "exact"])
@pytest.mark.parametrize("size_HW", [(72, 96), (131, 100)])
def test_flow_and_iterations_are_the_references(
    make_cuda: MakeCuda, numerics: str, size_HW: tuple[int, int]
) -> None:
    gray = moving_clip(2, *size_HW)
    want = Reference().solve(*gray)
    flow, counts_LW = solve_pair(make_cuda(numerics=numerics), gray)
    error = epe(flow, want.flow_2HW)
    assert error.mean() < 1e-3
    assert np.median(error) < 1e-4
    assert (counts_LW == want.counts_LW).mean() >= 0.9


@pytest.mark.parametrize("numerics", ["fast", "exact"])
@pytest.mark.parametrize("size_HW", SIZES)
def test_frames_around_the_borders_of_tasks_are_solved_as_the_reference_does(
    make_cuda: MakeCuda, numerics: str, size_HW: tuple[int, int]
) -> None:
    gray, params = shifted_pair(1, *size_HW), {"n_iterations": 11, "n_warps": 2}
    want = Reference(**params).compute(gray)[0]
    flow = make_cuda(on=LARGE_DEVICE, numerics=numerics, **params).compute(gray)[0]
    assert np.percentile(epe(flow, want), 99) < 1e-3


@settings(deadline=None, max_examples=60)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "tau": st.floats(0.05, 0.25),
            "lambda_": st.floats(0.02, 0.4),
            "theta": st.floats(0.1, 0.5),
            "n_scales": st.integers(1, 6),
            "scale_step": st.floats(0.4, 0.9),
            "n_warps": st.integers(1, 3),
            "epsilon": st.sampled_from([0.0, 0.005, 0.05]),
            "n_iterations": st.integers(1, 21),
            "numerics": st.sampled_from(["fast", "exact"]),
        },
    ),
    st.integers(3, 60),
    st.integers(3, 130),
    st.integers(0, 99),
)
def test_every_parameter_and_size_means_what_it_means_to_the_reference(
    make_cuda: MakeCuda, params: dict[str, Any], height: int, width: int, seed: int
) -> None:
    params = {"n_iterations": 9, "n_warps": 3, **params}
    gray = shifted_pair(seed, height, width)
    tvl1 = {name: value for name, value in params.items() if name != "numerics"}
    want = solve(gray[0], gray[1], TVL1Params(**tvl1), RULES["cuda"])
    flow, counts_LW = solve_pair(make_cuda(**params), gray)
    np.testing.assert_array_equal(counts_LW, want.counts_LW)
    error = epe(flow, want.flow_2HW)
    assert np.median(error) < 1e-3
    assert np.percentile(error, 90) < 0.05


@settings(deadline=None, max_examples=40)
@given(*[st.sampled_from([1e-6, 1e-3, 1.0, 1e3, 1e6])] * 3, st.sampled_from(["fast", "exact"]))
def test_parameters_far_from_the_defaults_mean_what_they_mean_to_the_reference(
    make_cuda: MakeCuda, tau: float, lambda_: float, theta: float, numerics: str
) -> None:
    rough = np.random.default_rng(0).integers(0, 256, (2, 20, 24), np.uint8)
    params = {"tau": tau, "lambda_": lambda_, "theta": theta, "n_iterations": 8, "n_warps": 2}
    want = Reference(**params).compute(rough)[0]
    got = make_cuda(numerics=numerics, **params).compute(rough)[0]
    assert np.median(epe(got, want)) <= 5e-3 * np.hypot(*want).mean() + 1e-9


def test_identical_frames_do_not_move_at_all(make_cuda: MakeCuda) -> None:
    frame = noise_clip(0, 1, 61, 83)[0]
    flow, counts_LW = solve_pair(make_cuda(), np.stack([frame, frame]))
    assert not flow.any()
    assert (counts_LW == 2).all()


# --- real pairs ---


def named_pairs(count: int) -> list[dict[str, Any]]:
    """Real pairs that move, spread evenly over the list of tests/bench."""
    moving = [p for p in json.loads(NAMED_PAIRS.read_text()) if p["median_px"] >= 0.5]
    return [moving[i * len(moving) // count] for i in range(count)]


def real_pair(path: Path, index: int) -> U8:
    """Gray uint8 [2, 256, 340]: that frame and the next."""
    with av.open(str(path)) as container:
        pictures = list(islice(container.decode(video=0), index, index + 2))
    gray = [picture.to_ndarray(format="gray") for picture in pictures]
    return np.stack([cv2.resize(g, (340, 256), interpolation=cv2.INTER_AREA) for g in gray])


def reference_of(gray: U8) -> np.ndarray:
    return Reference().solve(*gray).flow_2HW


@pytest.mark.shared
@pytest.mark.parametrize("count", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_real_pairs_are_solved_as_the_reference_does(
    make_cuda: MakeCuda, shared: Path, count: int
) -> None:
    """All in one batch; errors per pair, then the median over the pairs."""
    grays = [real_pair(shared / "videos" / p["video"], p["index"]) for p in named_pairs(count)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        wanted = list(pool.map(reference_of, grays))
    engines = {name: make_cuda(on={"n_threads": 2}, numerics=name) for name in ("fast", "exact")}
    for name, engine in engines.items():
        flows = engine.compute_batch(grays)
        errors = [epe(flow[0], want) for flow, want in zip(flows, wanted, strict=True)]
        stats = [(e.mean(), np.median(e), np.percentile(e, 95)) for e in errors]
        mean, middle, p95 = np.median(stats, axis=0)
        told = f"{name}: mean {mean:.2g}, median {middle:.2g}, p95 {p95:.2g} px"
        assert mean < 5e-3, told
        assert middle < 1e-3, told
        assert p95 < 1e-2, told
        assert max(mean for mean, *_ in stats) < 0.1, told


# --- the same pair, the same bits ---


def test_a_pairs_bits_depend_on_nothing_but_the_pair(make_cuda: MakeCuda) -> None:
    """Neither on the batch and its order, nor on how many warps there are and who works first."""
    clips = [noise_clip(seed, n, 70, 117) for seed, n in enumerate((5, 2, 3, 1, 9))]
    alone = [make_cuda(n_iterations=40).compute(clip) for clip in clips]
    orders = ([0, 1, 2, 3, 4], [4, 2, 0, 1, 3])
    for on in (SMALL_DEVICE, LARGE_DEVICE, {"n_threads": 7, "n_workers": 60}):
        for order in orders:
            engine = make_cuda(on=on, n_iterations=40)
            flows = engine.compute_batch([clips[i] for i in order])
            for i, flow in zip(order, flows, strict=True):
                np.testing.assert_array_equal(flow, alone[i])


# --- threads ---


@pytest.mark.slow
def test_warps_on_many_threads_do_not_race(
    host: Any, library: Callable[..., Path], tmp_path: Path
) -> None:
    """ThreadSanitizer watches 8 threads share out 6 pairs; it is silent, so nothing raced."""
    script = tmp_path / "race.py"
    built = library("-fsanitize=thread", "-g")
    script.write_text(RACE.format(host=host.__file__, library=str(built)))
    runtime = subprocess.check_output(["g++", "-print-file-name=libtsan.so"], text=True).strip()
    run = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "LD_PRELOAD": runtime, "TSAN_OPTIONS": "exitcode=66"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert "tvl1" not in run.stderr, run.stderr[:4000]
    assert run.stdout.strip() == "done", (run.returncode, run.stderr[:4000])


RACE = """
import importlib.util
from pathlib import Path
import numpy as np
from flowprep.flow.cuda.engine import Cuda
spec = importlib.util.spec_from_file_location("host", {host!r})
host = importlib.util.module_from_spec(spec)
spec.loader.exec_module(host)
gray = np.random.default_rng(0).integers(0, 256, (7, 70, 117), np.uint8)
device = lambda *_: host.HostDevice(Path({library!r}), n_threads=8, n_workers=8)
Cuda(open_device=device, n_iterations=30).compute(gray)
print("done")
"""
