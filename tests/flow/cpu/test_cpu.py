"""The engine: against the float64 reference, OpenCV's CPU code and known motion."""

from __future__ import annotations

import dataclasses
import threading
import tracemalloc
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowprep.errors import FlowprepError
from flowprep.flow.base import TVL1Params, get_engine
from flowprep.flow.cpu import engine as engine_module
from flowprep.flow.cpu.engine import Cpu, program
from flowprep.flow.cpu.jit import Target
from flowprep.flow.cpu.solver import Solver
from flowprep.flow.opencv import OpenCVCpu
from flowprep.flow.reference import (
    RULES,
    Reference,
    check_always,
    check_on_schedule,
    iterate,
    solve,
)
from flowprep.records import F32, U8
from flowprep.synth import Motion, render, render_wave

MOTIONS = {
    "translation": Motion(dx_px=1.3, dy_px=-0.7),
    "rotation": Motion(rotate_deg=2.0),
    "zoom": Motion(zoom=1.03),
    "all": Motion(dx_px=-2.5, dy_px=1.25, rotate_deg=-1.5, zoom=0.98),
}


def to_gray(rgb_THW3: U8) -> U8:
    return np.stack([cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in rgb_THW3])


@cache
def moving(name: str, n_frames: int, height: int, width: int) -> U8:
    return to_gray(render(MOTIONS[name], n_frames, height, width, seed=1))


def noise_clip(seed: int, n_frames: int, height: int, width: int) -> U8:
    """Smooth random frames that have nothing to do with one another."""
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 256, (n_frames, height, width)).astype(np.float32)
    return np.stack([np.rint(cv2.GaussianBlur(f, (0, 0), 1.5)) for f in raw]).astype(np.uint8)


def epe(a_2HW: np.ndarray, b_2HW: np.ndarray) -> np.ndarray:
    return np.hypot(*(a_2HW.astype(np.float64) - b_2HW))


# --- against the reference ---


@pytest.mark.parametrize("name", MOTIONS)
@pytest.mark.parametrize("stop_rule", ["cuda", "every"])
def test_flow_and_iterations_are_the_references(name: str, stop_rule: str) -> None:
    check = {"cuda": check_on_schedule, "every": check_always}[stop_rule]
    rules = dataclasses.replace(RULES["cuda"], check_is_due=check)
    gray = moving(name, 2, 72, 96)
    want = solve(gray[0], gray[1], TVL1Params(), rules)
    got = Cpu(stop_rule=stop_rule).solve(*gray)
    error = epe(got.flow_2HW, want.flow_2HW)
    assert error.mean() < 1e-3
    assert np.median(error) < 1e-4
    assert (got.counts_LW == want.counts_LW).mean() >= 0.9


@pytest.mark.shared
def test_a_real_pair_is_solved_as_the_reference_does(shared: Path) -> None:
    gray = [cv2.imread(str(shared / "pairs" / f"I{n}.png"), cv2.IMREAD_GRAYSCALE) for n in (0, 1)]
    gray = [cv2.resize(g, (128, 96), interpolation=cv2.INTER_AREA) for g in gray]
    want, got = Reference().solve(*gray), Cpu().solve(*gray)
    error = epe(got.flow_2HW, want.flow_2HW)
    assert (error.mean(), np.median(error)) < (0.03, 0.01)
    assert np.percentile(error, 95) < 0.1
    assert (got.counts_LW == want.counts_LW).mean() >= 0.8


few_iterations = st.fixed_dictionaries(
    {},
    optional={
        "tau": st.floats(0.05, 0.25),
        "lambda_": st.floats(0.02, 0.4),
        "theta": st.floats(0.1, 0.5),
        "n_scales": st.integers(1, 6),
        "scale_step": st.floats(0.4, 0.9),
        "n_warps": st.integers(1, 3),
        "epsilon": st.sampled_from([0.0, 0.005, 0.05]),
        "n_iterations": st.integers(1, 9),
    },
)


@settings(deadline=None, max_examples=60)
@given(few_iterations, st.integers(3, 60), st.integers(3, 60), st.integers(0, 99))
def test_every_parameter_and_size_means_what_it_means_to_the_reference(
    params: dict[str, Any], height: int, width: int, seed: int
) -> None:
    params = {"n_iterations": 9, "n_warps": 3, **params}
    texture = noise_clip(seed, 1, height + 1, width + 2)[0]
    gray = np.stack([texture[1:, 2:], texture[:-1, :-2]])  # moves by (2, 1) px
    want, got = Reference(**params).solve(*gray), Cpu(**params).solve(*gray)
    assert got.flow_2HW.shape == (2, height, width)
    np.testing.assert_array_equal(got.counts_LW, want.counts_LW)
    error = epe(got.flow_2HW, want.flow_2HW)
    assert np.median(error) < 1e-3
    assert np.percentile(error, 90) < 0.05


@given(
    st.lists(st.floats(1e-9, 1e6), min_size=200, max_size=200),
    st.floats(1e-3, 1e3),
    st.integers(1, 60),
)
@example([8.0, 8.0, 6.0, 6.0] * 50, 1.0, 60)  # multiples of twice the limit
def test_checks_fall_where_the_canons_schedule_puts_them(
    errors: list[float], limit: float, cap: int
) -> None:
    """Against the counter of OpenCV CUDA, run one iteration at a time."""
    steps = iter(errors)
    n, checks = iterate(lambda: next(steps), limit, cap, check_on_schedule)
    counts = [count + 1 for count, _ in checks]
    solver = Solver((16, 16), TVL1Params(n_iterations=cap), "cuda", None)
    assert counts[:1] in ([2], [])
    for (start, error), after in zip(checks, counts[1:], strict=False):
        assert start + 1 + solver._next_check(error, limit) == after
    if checks and n == cap and counts[-1] < cap:
        assert counts[-1] + solver._next_check(checks[-1][1], limit) > cap


# --- the same pair, the same bits ---


@settings(deadline=None, max_examples=25)
@given(st.data(), st.integers(0, 99))
def test_a_pairs_bits_do_not_depend_on_its_neighbours(data: st.DataObject, seed: int) -> None:
    gray = noise_clip(seed, 6, 33, 47)
    engine = Cpu(n_iterations=20, threads=data.draw(st.integers(1, 3)))
    whole = Cpu(n_iterations=20).compute(gray)
    start = data.draw(st.integers(0, 4))
    stop = data.draw(st.integers(start + 2, 6))
    np.testing.assert_array_equal(engine.compute(gray[start:stop]), whole[start : stop - 1])


def test_threads_share_out_a_long_clip_without_changing_a_bit() -> None:
    gray = noise_clip(3, 24, 40, 52)
    one = Cpu(n_iterations=30).compute(gray)
    before = threading.active_count()
    for n in (2, 3, 5):
        np.testing.assert_array_equal(Cpu(n_iterations=30, threads=n).compute(gray), one)
    assert threading.active_count() == before


def test_processors_of_every_width_give_the_same_bits(
    targets: dict[str, Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    if len(targets) < 2:
        pytest.skip("this processor knows one width only")
    gray, flows = moving("all", 3, 72, 96), {}
    for name, target in targets.items():
        compiled = program(target)
        monkeypatch.setattr(engine_module, "program", lambda _, compiled=compiled: compiled)
        flows[name] = Cpu().compute(gray).tobytes()
    assert len(set(flows.values())) == 1


def test_engines_in_several_threads_do_not_disturb_each_other() -> None:
    clips = [noise_clip(seed, 4, 30 + seed, 45) for seed in range(4)]
    alone = [Cpu(n_iterations=40).compute(clip) for clip in clips]
    found: dict[int, F32] = {}

    def work(number: int) -> None:
        engine = Cpu(n_iterations=40)
        found[number] = [engine.compute(clips[number]) for _ in range(5)][-1]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, flow in enumerate(alone):
        np.testing.assert_array_equal(found[number], flow)


# --- known motion ---


def known_pair(name: str, height: int, width: int) -> tuple[U8, F32]:
    if name == "wave":
        rgb, flow = render_wave(height, width)
        return to_gray(rgb), flow
    return moving(name, 2, height, width), MOTIONS[name].flow_T2HW(2, height, width)[0]


def ends_inside(flow_2HW: F32, margin_px: float = 2) -> np.ndarray:
    """bool [H, W]: the pixel's motion ends at least `margin_px` inside the frame."""
    height, width = flow_2HW.shape[1:]
    y, x = np.mgrid[:height, :width]
    end_x, end_y = x + flow_2HW[0], y + flow_2HW[1]
    in_x = (end_x >= margin_px) & (end_x <= width - 1 - margin_px)
    return in_x & (end_y >= margin_px) & (end_y <= height - 1 - margin_px)


@pytest.mark.parametrize("name", [*MOTIONS, "wave"])
def test_known_motion_is_found_at_least_as_well_as_by_opencvs_cpu_code(name: str) -> None:
    gray, true = known_pair(name, 128, 160)
    inside = ends_inside(true)
    own, opencv = (epe(e.compute(gray)[0], true)[inside].mean() for e in (Cpu(), OpenCVCpu()))
    assert own <= opencv
    assert own < 0.1


# --- input ---


@pytest.mark.parametrize(
    ("stop_rule", "epsilon", "count"),
    [("cuda", 0.01, 2), ("every", 0.01, 1), ("every", 0.0, 1), ("cuda", 0.0, 300)],
)
def test_identical_frames_do_not_move_at_all(stop_rule: str, epsilon: float, count: int) -> None:
    """OpenCV CUDA never checks with epsilon = 0; its CPU code stops at an error of 0."""
    frame = noise_clip(0, 1, 61, 83)[0]
    solved = Cpu(stop_rule=stop_rule, epsilon=epsilon).solve(frame, frame)
    assert not solved.flow_2HW.any()
    assert (solved.counts_LW == count).all()


def test_a_tiny_epsilon_means_all_iterations() -> None:
    solved = Cpu(epsilon=1e-160, n_iterations=12).solve(*noise_clip(0, 2, 40, 50))
    assert (solved.counts_LW == 12).all()


@pytest.mark.parametrize(("value_0", "value_1"), [(0, 255), (255, 0), (128, 129)])
def test_flat_frames_of_different_brightness_do_not_move(value_0: int, value_1: int) -> None:
    gray = np.stack([np.full((40, 50), v, np.uint8) for v in (value_0, value_1)])
    assert not Cpu().compute(gray).any()


@pytest.mark.parametrize(
    "size_HW",
    [(16, 16), (17, 31), (3, 3), (3, 500), (500, 3), (16, 2048), (3, 20_000), (31, 33), (40, 65)],
)
def test_odd_and_narrow_frames_are_solved_as_the_reference_does(size_HW: tuple[int, int]) -> None:
    gray, params = noise_clip(1, 2, *size_HW), {"n_iterations": 6, "n_warps": 2}
    error = epe(Cpu(**params).compute(gray)[0], Reference(**params).compute(gray)[0])
    assert np.percentile(error, 99) < 1e-3


def test_the_last_corner_of_a_4k_pair_is_solved_as_the_reference_does() -> None:
    """One level and few iterations reach few pixels, so a corner can be solved by itself."""
    texture = noise_clip(2, 1, 2170, 4106)[0]
    gray = np.stack([texture[5:-5, 5:-5], texture[4:-6, 3:-7]])
    params = {"n_scales": 1, "n_warps": 1, "n_iterations": 2}
    flow = Cpu(**params).compute(gray)[0]
    want = Reference(**params).compute(gray[:, -60:, -60:])[0]
    assert flow.shape == (2, 2160, 4096)
    assert epe(flow[:, -40:, -40:], want[:, -40:, -40:]).max() < 1e-3


@pytest.mark.parametrize("error", [np.inf, np.nan])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_flow_that_is_not_finite_is_an_error(error: float, threads: int) -> None:
    """Parameters in range do not lead there, so the kernel is made to say so."""

    class Diverging:
        def __getattr__(self, name: str) -> Any:
            kernel = getattr(program(Target.host()), name)
            return (lambda *_: error) if name == "sweep" else kernel

    engine = Cpu(threads=threads)
    engine._program = Diverging()
    with pytest.raises(FlowprepError, match=r"theta = 0\.3: the flow is not finite"):
        engine.compute(noise_clip(0, 24, 40, 50))


extremes = st.sampled_from([1e-6, 1e-3, 1.0, 1e3, 1e6])


@settings(deadline=None, max_examples=40)
@given(extremes, extremes, extremes)
def test_parameters_far_from_the_defaults_mean_what_they_mean_to_the_reference(
    tau: float, lambda_: float, theta: float
) -> None:
    rough = np.random.default_rng(0).integers(0, 256, (2, 20, 24), np.uint8)
    params = {"tau": tau, "lambda_": lambda_, "theta": theta, "n_iterations": 8, "n_warps": 2}
    want, got = Reference(**params).compute(rough)[0], Cpu(**params).compute(rough)[0]
    assert np.median(epe(got, want)) <= 5e-3 * np.hypot(*want).mean() + 1e-9


def test_no_memory_for_the_work_space_is_an_error_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any) -> Solver:
        raise MemoryError

    engine = Cpu(n_iterations=2)
    with monkeypatch.context() as patch:
        patch.setattr(engine_module, "Solver", refuse)
        for _ in range(2):
            with pytest.raises(MemoryError):
                engine.compute(noise_clip(0, 2, 20, 30))
    assert engine.compute(noise_clip(0, 2, 20, 30)).shape == (1, 2, 20, 30)


@pytest.mark.parametrize("wrong", ["Every", "", 1, None])
def test_an_unknown_stop_rule_is_refused(wrong: Any) -> None:
    with pytest.raises(FlowprepError, match="stop_rule"):
        Cpu(stop_rule=wrong)


def test_a_pair_of_different_sizes_is_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        Cpu().solve(np.zeros((20, 20), np.uint8), np.zeros((20, 21), np.uint8))


def test_a_processor_without_fused_multiply_add_is_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = Target("core2", "+sse2,-fma")
    if not Target("x", "").has_fma:  # 64-bit ARM has it always
        monkeypatch.setattr(Target, "host", classmethod(lambda cls: old))
        with pytest.raises(FlowprepError, match=r"fused multiply-add.*core2") as refused:
            get_engine("cpu")
        assert "opencv-cpu" in refused.value.hint


def test_work_space_is_made_once_per_thread_and_frame_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []
    monkeypatch.setattr(engine_module, "Solver", lambda *args: made.append(args) or Solver(*args))
    engine = Cpu(n_iterations=2, n_warps=1, threads=2)
    for size in ((20, 30), (20, 30), (20, 31), (31, 31)):
        engine.compute(noise_clip(0, 3, *size))
    sizes = [(20, 30), (20, 31), (31, 31)]
    assert [args[0] for args in made] == [size for size in sizes for _ in range(2)]


def test_threads_of_large_frames_stay_within_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "Solver", lambda size_HW, *_: size_HW)
    assert engine_module.MOST_WORK_BYTES <= 8 << 30
    monkeypatch.setattr(engine_module, "MOST_WORK_BYTES", 8 << 30)
    n_solvers = {
        size: len(Cpu(threads=64)._solvers_for(size))
        for size in ((256, 340), (1080, 1920), (2160, 4096), (8640, 16384))
    }
    assert list(n_solvers.values()) == [64, 25, 5, 1]


def test_the_work_space_is_as_large_as_the_engine_reckons() -> None:
    for size in ((256, 340), (1080, 1920)):
        tracemalloc.start()
        solver = Solver(size, TVL1Params(), "cuda", None)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert solver.size_HW == size
        assert peak == pytest.approx(engine_module.WORK_BYTES_PER_PX * size[0] * size[1], rel=0.1)


def test_a_clips_pyramids_are_made_once_per_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    load = Solver._load
    monkeypatch.setattr(
        Solver, "_load", lambda self, f: loaded.append(f.tobytes()) or load(self, f)
    )
    gray = noise_clip(0, 5, 20, 30)
    Cpu(n_iterations=2).compute(gray)
    assert loaded == [frame.tobytes() for frame in gray]
