"""cv2.cuda's TV-L1 on a CUDA device: the engine contract, and agreement with the reference."""

from __future__ import annotations

import importlib.util
import os
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from flowprep.flow.base import engine_status, get_engine
from flowprep.flow.reference import Reference
from flowprep.synth import Motion, render

pytestmark = pytest.mark.gpu

PAIRS = {  # motion, height, width, seed
    "shift": (Motion(dx_px=1.3, dy_px=-0.7), 96, 128, 1),
    "drift": (Motion(dx_px=-0.4, dy_px=0.25), 97, 131, 2),
    "turn": (Motion(rotate_deg=2.0), 96, 128, 3),
    "zoom": (Motion(zoom=1.02, dx_px=0.5), 120, 90, 4),
    "shear": (Motion(shear=0.03, dy_px=0.6), 96, 128, 5),
}


@pytest.fixture(scope="module", autouse=True)
def _live() -> None:
    status = engine_status("opencv-cuda")
    if status.available:
        return
    if os.environ.get("FLOWPREP_FAIL_WITHOUT_CUDA") == "1":
        pytest.fail(f"opencv-cuda is not live: {status.detail}")
    pytest.skip(f"opencv-cuda is not live here: {status.detail}")


def load_contract() -> ModuleType:
    """tests/flow/contract.py: with --import-mode=importlib tests cannot import each other."""
    path = Path(__file__).parents[1] / "flow" / "contract.py"
    spec = importlib.util.spec_from_file_location("flow_contract", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def rendered_pair(name: str) -> np.ndarray:
    motion, height, width, seed = PAIRS[name]
    rgb = render(motion, 2, height, width, seed)
    return np.rint(rgb @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)


def both_flows(name: str, **params: int) -> tuple[np.ndarray, np.ndarray]:
    gray = rendered_pair(name)
    theirs = get_engine("opencv-cuda", **params).compute(gray)[0]
    return theirs, Reference(rules="cuda", **params).compute(gray)[0]


def one_minus_ccorr(a: np.ndarray, b: np.ndarray) -> float:
    """As OpenCV's EXPECT_MAT_SIMILAR: 1 - TM_CCORR_NORMED over the whole flow."""
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return abs(1 - float(a @ b / np.sqrt((a @ a) * (b @ b))))


def test_the_engine_keeps_the_contract() -> None:
    load_contract().check_engine(partial(get_engine, "opencv-cuda"))


def test_the_flow_is_the_references_on_the_middle_pair() -> None:
    """Per pair, then the median over pairs: two builds of the same code differ in single pixels."""
    stats, worst = [], ("", 0.0)
    for name in PAIRS:
        theirs, ours = both_flows(name)
        epe = np.hypot(*(theirs - ours))
        stats.append((epe.mean(), np.median(epe), np.quantile(epe, 0.95)))
        worst = max(worst, (name, float(epe.mean())), key=lambda found: found[1])
    mean, middle, p95 = np.median(stats, axis=0)
    told = f"mean {mean:.4f}, median {middle:.4f}, p95 {p95:.4f} px; worst pair {worst}"
    assert mean < 0.03, told
    assert middle < 0.01, told
    assert p95 < 0.1, told


@pytest.mark.parametrize("name", PAIRS)
def test_ten_iterations_meet_upstreams_own_bar(name: str) -> None:
    assert one_minus_ccorr(*both_flows(name, n_iterations=10)) < 4e-3


@pytest.mark.parametrize("name", PAIRS)
def test_one_level_equals_the_reference_to_rounding(name: str) -> None:
    """Epsilon 0 never checks: 2 x 20 iterations on one level, nothing to decide or amplify."""
    theirs, ours = both_flows(name, n_scales=1, n_warps=2, n_iterations=20, epsilon=0)
    epe = np.hypot(*(theirs - ours))
    assert np.median(epe) < 1e-4
    assert np.quantile(epe, 0.95) < 1e-2


def test_two_engines_in_one_process_do_not_disturb_each_other() -> None:
    gray = rendered_pair("turn")
    first, second = get_engine("opencv-cuda"), get_engine("opencv-cuda", n_warps=3)
    alone = first.compute(gray)
    second.compute(gray)
    assert np.array_equal(first.compute(gray), alone)
