"""What every engine must do. `check_engine` runs all of it; CHECKS holds the parts by name.

Frames are small, so that the slowest engine gets through in seconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from flowprep.errors import FlowprepError
from flowprep.flow.base import Engine, GivesCodes, TVL1Params
from flowprep.flow.distinct import stream
from flowprep.quantize import MAPS, make_quantizer
from flowprep.records import F32, U8, CodedFlow
from flowprep.synth import Motion, render, render_wave

BORDER_PX = 8  # flow that leaves the frame is not judged


@dataclass(frozen=True, kw_only=True)
class Case:
    """An engine under test. `make(threads=..., **params)` gives a new one."""

    make: Callable[..., Engine]
    is_tvl1: bool = True  # estimates motion and takes TVL1Params
    interior_epe_px: float = 0.03  # mean end-point error allowed on small smooth motion


def to_gray(rgb_THW3: U8) -> U8:
    return np.rint(rgb_THW3 @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)


def clip(motion: Motion, n_frames: int, height: int, width: int, seed: int = 1) -> U8:
    return to_gray(render(motion, n_frames, height, width, seed))


SPIN = Motion(dx_px=0.8, dy_px=-1.1, rotate_deg=1.5, zoom=1.01)


def check_describes_itself(case: Case) -> None:
    engine = case.make()
    assert engine.name, "an engine has a name"
    assert engine.build, "an engine says what computes"
    assert json.loads(json.dumps(dict(engine.params))) == dict(engine.params)
    if case.is_tvl1:
        assert set(TVL1Params().as_dict()) <= set(engine.params), "all effective parameters"
        assert case.make(n_warps=2).params["n_warps"] == 2


def check_shapes(case: Case) -> None:
    engine = case.make()
    for n_frames, height, width in ((2, 32, 40), (3, 33, 47), (2, 17, 64), (2, 9, 11)):
        flow = engine.compute(clip(SPIN, n_frames, height, width))
        assert flow.shape == (n_frames - 1, 2, height, width)
        assert flow.dtype == np.float32
        assert flow.flags.c_contiguous, "flow must be C-contiguous"
        assert np.isfinite(flow).all()


def check_one_frame(case: Case) -> None:
    flow = case.make().compute(clip(SPIN, 1, 33, 47))
    assert flow.shape == (0, 2, 33, 47)
    assert flow.dtype == np.float32


def check_identical_frames(case: Case) -> None:
    frame = clip(SPIN, 1, 40, 48)
    flow = case.make().compute(np.concatenate([frame, frame]))
    assert not flow.any(), "identical frames must give exactly 0"


def check_pairs_are_independent(case: Case) -> None:
    gray = clip(SPIN, 4, 36, 44)
    whole = case.make().compute(gray)
    engine = case.make()
    for i in (2, 0, 1):
        assert_same_bits(engine.compute(gray[i : i + 2])[0], whole[i])
    assert_same_bits(engine.compute(gray[1:]), whole[1:])


def check_batch(case: Case) -> None:
    gray, other = clip(SPIN, 3, 36, 44), clip(Motion(dx_px=-2.0), 2, 36, 44, seed=7)
    engine = case.make()
    alone = [case.make().compute(g) for g in (gray, other, gray[:1])]
    for batch in ((0, 1, 2), (1, 2, 0), (1,)):
        flows = engine.compute_batch([(gray, other, gray[:1])[i] for i in batch])
        assert len(flows) == len(batch)
        for i, flow in zip(batch, flows, strict=True):
            assert_same_bits(flow, alone[i])
    assert engine.compute_batch([]) == []


def check_batch_pairs(case: Case) -> None:
    n_pairs = case.make().batch_pairs((36, 44))
    assert isinstance(n_pairs, int)
    assert n_pairs >= 1, "pairs it would like at a time"


def check_threads(case: Case) -> None:
    gray = clip(SPIN, 4, 36, 44)
    assert_same_bits(case.make(threads=2).compute(gray), case.make(threads=1).compute(gray))


def check_size_change(case: Case) -> None:
    small, large = clip(SPIN, 2, 18, 20), clip(SPIN, 2, 60, 72)
    engine = case.make()
    engine.compute(small)
    assert_same_bits(engine.compute(large), case.make().compute(large))
    assert_same_bits(engine.compute(small), case.make().compute(small))


def check_stream(case: Case) -> None:
    gray = clip(SPIN, 6, 30, 38)
    gray[3] = gray[2]
    whole = case.make().compute(gray)
    for cuts in ((1, 2), (2, 5), (3, 4)):
        parts = list(stream(case.make(), np.split(gray, cuts)))
        assert [len(p) for p in parts] == [cuts[0] - 1, cuts[1] - cuts[0], 6 - cuts[1]]
        assert_same_bits(np.concatenate(parts), whole)


def check_input_layout(case: Case) -> None:
    gray = clip(SPIN, 2, 36, 44)
    view = np.repeat(gray, 2, axis=2)[:, :, ::2]
    before = view.copy()
    assert_same_bits(case.make().compute(view), case.make().compute(gray))
    assert np.array_equal(view, before), "the input must stay as it is"


def check_refuses_wrong_dtype(case: Case) -> None:
    gray = clip(SPIN, 2, 32, 40)
    for wrong in (gray.astype(np.float32), gray.astype(np.uint16)):
        assert_refused(case, wrong)


def check_refuses_wrong_shape(case: Case) -> None:
    gray = clip(SPIN, 2, 32, 40)
    for wrong in (gray[0], gray[:, :, :, None], gray[:0]):
        assert_refused(case, wrong)


def check_refuses_wrong_parameters(case: Case) -> None:
    for wrong in ({"n_scales": 0}, {"tau": 0.0}, {"scale_step": 1.0}, {"no_such_thing": 1}):
        with pytest.raises(FlowprepError, match=next(iter(wrong))) as refused:
            case.make(**wrong)
        assert refused.value.hint, "the hint says what to do"


def check_translation(case: Case) -> None:
    motion = Motion(dx_px=1.3, dy_px=-0.7)
    assert_interior_epe(case, motion, 61, 83)
    assert_interior_epe(case, Motion(dx_px=-0.25, dy_px=0.4), 48, 64)


def check_turn_and_zoom(case: Case) -> None:
    assert_interior_epe(case, Motion(rotate_deg=2.0, zoom=1.02), 72, 96)


def check_sinusoid(case: Case) -> None:
    """After scikit-image's test: a wave of displacement 4.5 px high, bar 0.5 px mean |error|."""
    rgb, true_2HW = render_wave(72, 96, amplitude_px=4.5)
    error = np.abs(case.make().compute(to_gray(rgb))[0] - true_2HW).mean()
    assert error < 0.5, f"mean |error| {error:.3f} px"


def check_codes(case: Case) -> None:
    """A small bound, so that some of the flow is beyond it."""
    gray = clip(Motion(dx_px=-2.0, rotate_deg=3.0), 4, 70, 44)
    flow = case.make().compute(gray)
    for name in MAPS:
        quantizer = make_quantizer(name, 1.5)
        (got,), want = codes(case.make(), [gray], name), quantizer.coded(flow)
        assert np.array_equal(got.codes, want.codes), f"the codes of map {name}"
        np.testing.assert_allclose(got.sum_px, want.sum_px, rtol=1e-5)
        np.testing.assert_allclose(got.max_px, want.max_px, rtol=1e-6)
        assert np.array_equal(got.n_beyond, want.n_beyond)
        assert want.n_beyond.any() == (name != "int16")


def check_codes_of_pairs_are_independent(case: Case) -> None:
    gray, other = clip(SPIN, 4, 70, 44), clip(Motion(dx_px=-2.0), 2, 70, 44, seed=7)
    engine = case.make()
    (whole,) = codes(case.make(), [gray])
    alone = codes(engine, [gray[2:], other, gray[:3], gray[:1]])
    assert [len(coded) for coded in alone] == [1, 1, 2, 0]
    joined = CodedFlow.joined([alone[2], alone[0]])
    for field in ("codes", "sum_px", "max_px", "n_beyond"):
        got, want = getattr(joined, field), getattr(whole, field)
        assert got.dtype == want.dtype
        assert got.tobytes() == want.tobytes(), f"{field} of a pair depends on its neighbours"
    assert codes(engine, []) == []


def codes(engine: Engine, clips: list[U8], name: str = "symmetric") -> list[CodedFlow]:
    assert isinstance(engine, GivesCodes)
    return engine.compute_codes_batch(clips, make_quantizer(name, 1.5))


CHECKS: dict[str, Callable[[Case], None]] = {
    "describes_itself": check_describes_itself,
    "shapes": check_shapes,
    "one_frame": check_one_frame,
    "identical_frames": check_identical_frames,
    "pairs_are_independent": check_pairs_are_independent,
    "batch": check_batch,
    "batch_pairs": check_batch_pairs,
    "threads": check_threads,
    "size_change": check_size_change,
    "stream": check_stream,
    "input_layout": check_input_layout,
    "refuses_wrong_dtype": check_refuses_wrong_dtype,
    "refuses_wrong_shape": check_refuses_wrong_shape,
}
TVL1_CHECKS: dict[str, Callable[[Case], None]] = {
    "refuses_wrong_parameters": check_refuses_wrong_parameters,
    "translation": check_translation,
    "turn_and_zoom": check_turn_and_zoom,
    "sinusoid": check_sinusoid,
}

CODES_CHECKS: dict[str, Callable[[Case], None]] = {
    "codes": check_codes,
    "codes_of_pairs_are_independent": check_codes_of_pairs_are_independent,
}
"""For engines that can quantise."""


def check_engine(
    make_engine: Callable[..., Engine], *, is_tvl1: bool = True, interior_epe_px: float = 0.03
) -> None:
    """Run every check; `make_engine(threads=..., **params)` gives a new engine."""
    case = Case(make=make_engine, is_tvl1=is_tvl1, interior_epe_px=interior_epe_px)
    tvl1_checks = TVL1_CHECKS if is_tvl1 else {}
    codes_checks = CODES_CHECKS if isinstance(case.make(), GivesCodes) else {}
    for check in (CHECKS | tvl1_checks | codes_checks).values():
        check(case)


def assert_interior_epe(case: Case, motion: Motion, height: int, width: int) -> None:
    flow = case.make().compute(clip(motion, 2, height, width))[0]
    inside = np.s_[:, BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX]
    error = flow[inside] - motion.flow_T2HW(2, height, width)[0][inside]
    epe = np.hypot(*error).mean()
    assert epe < case.interior_epe_px, f"mean end-point error {epe:.4f} px on {motion}"


def assert_same_bits(got: F32, want: F32) -> None:
    assert got.shape == want.shape, f"{got.shape} is not {want.shape}"
    different = int((got.view(np.uint32) != want.view(np.uint32)).sum())
    assert different == 0, f"{different} of {got.size} values differ in their bits"


def assert_refused(case: Case, gray: np.ndarray) -> None:
    with pytest.raises((ValueError, FlowprepError)):
        case.make().compute(gray)
