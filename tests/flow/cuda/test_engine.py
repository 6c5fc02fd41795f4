"""Engine `cuda` around its kernels: the contract, batches, memory, what a bad device leads to."""

from __future__ import annotations

import builtins
import importlib.util
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowprep.errors import DeviceLost, FlowprepError
from flowprep.flow.base import TVL1Params, engine_status, get_engine
from flowprep.flow.cuda import batches as batches_module
from flowprep.flow.cuda import device as device_module
from flowprep.flow.cuda.batches import Capacity, Run
from flowprep.flow.cuda.layout import Codes, Geometry
from flowprep.quantize import make_quantizer
from flowprep.records import U8

MakeCuda = Callable[..., Any]
FEW = {"n_iterations": 4, "n_warps": 1, "n_scales": 2}


def load_contract() -> ModuleType:
    """tests/flow/contract.py: with --import-mode=importlib tests cannot import each other."""
    path = Path(__file__).parents[1] / "contract.py"
    spec = importlib.util.spec_from_file_location("cuda_contract", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


contract = load_contract()
CHECKS = contract.CHECKS | contract.TVL1_CHECKS | contract.CODES_CHECKS


@pytest.mark.parametrize("numerics", ["fast", "exact"])
@pytest.mark.parametrize("check", CHECKS)
def test_the_engine_keeps_the_contract(make_cuda: MakeCuda, check: str, numerics: str) -> None:
    def make(**params: Any) -> Any:
        return make_cuda(on={"n_threads": 2}, numerics=numerics, **params)

    CHECKS[check](contract.Case(make=make))


def noise(n_frames: int, height: int = 20, width: int = 30, seed: int = 0) -> U8:
    return np.random.default_rng(seed).integers(0, 256, (n_frames, height, width), np.uint8)


# --- batches ---


@given(st.lists(st.integers(1, 40), max_size=12), st.integers(1, 25))
def test_clips_are_cut_into_batches_that_fit_and_hold_each_pair_once(
    lengths: list[int], n_pairs: int
) -> None:
    capacity = Capacity(n_pairs)
    batches = list(capacity.cut(list(enumerate(lengths))))
    for runs in batches:
        assert 1 <= sum(run.n_pairs for run in runs) <= capacity.n_pairs
        assert sum(run.n_pairs + 1 for run in runs) <= max(2, capacity.n_frames)
    pairs = [(r.clip, i) for runs in batches for r in runs for i in range(r.first, r.last)]
    assert pairs == [(clip, i) for clip, n in enumerate(lengths) for i in range(n - 1)]


def test_a_batch_is_as_full_as_it_can_be() -> None:
    (first, second) = Capacity(8).cut([(0, 6), (1, 9)])
    assert first == [Run(0, 0, 5), Run(1, 0, 3)]
    assert second == [Run(1, 3, 8)]


def test_little_memory_means_more_batches_and_the_same_flow(make_cuda: MakeCuda) -> None:
    clips = [noise(9), noise(2, seed=1), noise(6, seed=2)]
    whole = make_cuda(**FEW).compute_batch(clips)
    geometry = Geometry.of((20, 30), TVL1Params(**FEW))
    engine = make_cuda(gpu_bytes=2 * geometry.bytes_for(4, 3), **FEW)
    assert engine.batch_pairs((20, 30)) == 6
    flows = engine.compute_batch(clips)
    n_batches = [device.launched.count("begin") for device in engine.devices]
    assert sum(n_batches) >= 14 / 3  # batches for 14 pairs
    assert n_batches[0] - n_batches[1] in (0, 1)
    for flow, want in zip(flows, whole, strict=True):
        np.testing.assert_array_equal(flow, want)


def test_memory_is_within_what_the_engine_was_given(make_cuda: MakeCuda) -> None:
    for share, gpu_bytes in ((1.0, None), (0.25, None), (0.5, 64 << 20), (1.0, 16 << 20)):
        engine = make_cuda(gpu_share=share, gpu_bytes=gpu_bytes, on={"total_bytes": 256 << 20})
        engine.batch_pairs((256, 340))
        taken = sum(n_bytes for device in engine.devices for n_bytes in device.allocated)
        limit = share * (gpu_bytes or 0.8 * (256 << 20))
        assert 0.5 * limit < taken <= limit


def test_memory_that_is_not_free_halves_the_batch_and_says_so(
    make_cuda: MakeCuda, caplog: pytest.LogCaptureFixture
) -> None:
    clip = noise(12)
    engine = make_cuda(**FEW)
    want = make_cuda(**FEW).compute(clip)
    engine.devices[1].largest_allocation = 1 << 20
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(engine.compute(clip), want)
    assert engine.devices[1].allocated[-1] <= 1 << 20
    assert "batches of" in caplog.text


def test_one_lane_is_enough_where_memory_is_short(
    make_cuda: MakeCuda, caplog: pytest.LogCaptureFixture
) -> None:
    clip, geometry = noise(6), Geometry.of((20, 30), TVL1Params(**FEW))
    want = make_cuda(**FEW).compute(clip)
    planned = make_cuda(gpu_bytes=geometry.bytes_for(3, 2), **FEW)
    np.testing.assert_array_equal(planned.compute(clip), want)
    assert not planned.devices[1].launched
    found = make_cuda(**FEW)
    found.devices[1].largest_allocation = 1 << 10
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(found.compute(clip), want)
    assert "one batch at a time: one pair of 30x20 frames" in caplog.text


@pytest.mark.parametrize("on", [{"total_bytes": 1 << 16}, {"total_bytes": 1 << 30}])
def test_a_frame_that_does_not_fit_at_all_is_the_users_to_change(
    make_cuda: MakeCuda, on: dict[str, int]
) -> None:
    engine = make_cuda(on=on)
    engine.devices[0].largest_allocation = 1 << 10
    with pytest.raises(FlowprepError, match="one pair of 340x256 frames takes") as refused:
        engine.compute(noise(2, 256, 340))
    assert "--gpu-mem" in refused.value.hint


# --- what comes down ---


def test_little_memory_means_the_same_codes_and_statistics(make_cuda: MakeCuda) -> None:
    clips, quantizer = [noise(9, 70), noise(2, 70, seed=1), noise(6, 70)], make_quantizer("i3d", 2)
    whole = make_cuda(**FEW).compute_codes_batch(clips, quantizer)
    geometry = Geometry.of((70, 30), TVL1Params(**FEW))
    engine = make_cuda(gpu_bytes=2 * geometry.bytes_for(4, 3), **FEW)
    for coded, want in zip(engine.compute_codes_batch(clips, quantizer), whole, strict=True):
        for field in ("codes", "sum_px", "max_px", "n_beyond"):
            np.testing.assert_array_equal(getattr(coded, field), getattr(want, field))
    assert sum(device.launched.count("begin") for device in engine.devices) >= 14 / 3


def test_the_host_keeps_no_more_memory_than_what_comes_down_takes(make_cuda: MakeCuda) -> None:
    clip, quantizer = noise(5), make_quantizer("symmetric", 20)
    want = make_cuda(**FEW).compute(clip)
    engine = make_cuda(**FEW)
    values_per_lane = engine.batch_pairs((20, 30)) // 2 * 2 * 20 * 30
    (coded,) = engine.compute_codes_batch([clip], quantizer)
    assert engine.devices[0].host_bytes == [values_per_lane]
    batches = engine.solve([clip], Codes.of(quantizer))
    (_, solved) = next(batches)
    np.testing.assert_array_equal(engine.compute(clip), want)  # in memory of its own
    np.testing.assert_array_equal(solved.out, coded.codes)
    assert engine.devices[0].host_bytes == [values_per_lane, 4 * values_per_lane]
    engine.compute_codes_batch([clip], quantizer)
    assert len(engine.devices[0].host_bytes) == 2


@pytest.mark.parametrize("plane", ["dx", "dy"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_shows_in_its_pair_and_in_no_other(
    make_cuda: MakeCuda, monkeypatch: pytest.MonkeyPatch, value: float, plane: str
) -> None:
    """The largest vector would not tell: fmaxf drops what is not a number."""
    engine, clip, quantizer = make_cuda(**FEW), noise(4), make_quantizer("symmetric", 20)
    (want,) = engine.compute_codes_batch([clip], quantizer)
    launch = engine.devices[0].launch

    def spoil(name: str, job_address: int, *numbers: int) -> None:
        if name == "deliver":
            states, n_quads = at_section(engine, "states", 4), engine._lanes[0].geometry.state_quads
            for side in (0, 1):
                quad = states + 16 * ((6 * 1 + 3 * side) * n_quads + 40)  # of pair 1
                at = quad + {"dx": 0, "dy": 8}[plane]
                engine.devices[0].send(np.array([value], np.float32), at)
        launch(name, job_address, *numbers)

    monkeypatch.setattr(engine.devices[0], "launch", spoil)
    (coded,) = engine.compute_codes_batch([clip], quantizer)
    assert np.isfinite(coded.sum_px).tolist() == [True, False, True]
    assert not coded.is_finite()
    for field in ("codes", "sum_px", "max_px", "n_beyond"):
        np.testing.assert_array_equal(getattr(coded, field)[::2], getattr(want, field)[::2])


# --- launches ---


def test_a_launch_that_ends_early_is_followed_by_another(
    make_cuda: MakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, params = noise(4, 40, 117), {"n_iterations": 20, "n_warps": 2}
    want = make_cuda(**params).compute(clip)
    monkeypatch.setattr(batches_module, "SLICE_NS", 1_000_000)
    engine = make_cuda(on={"n_threads": 2}, **params)
    np.testing.assert_array_equal(engine.compute(clip), want)
    assert engine.devices[0].launched.count("solve") > 5
    assert engine.devices[0].launched.count("deliver") == 1


def test_a_batch_is_waited_for_twice(make_cuda: MakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its iterations: until it is done, and until its flow is here."""
    engine, waits = make_cuda(**FEW), []
    monkeypatch.setattr(engine.devices[0], "wait", lambda: waits.append(1))
    engine.compute(noise(5))
    assert len(waits) == 2


def test_the_next_batch_is_started_before_the_host_reads_one(make_cuda: MakeCuda) -> None:
    geometry = Geometry.of((20, 30), TVL1Params(**FEW))
    engine = make_cuda(gpu_bytes=2 * geometry.bytes_for(4, 3), **FEW)
    first, second = engine.devices
    clips = [noise(10)]
    batches = engine.solve(clips)
    (runs, solved) = next(batches)
    assert "solve" in second.launched
    assert "deliver" not in second.launched
    whole = make_cuda(**FEW).compute(clips[0])
    for _ in range(2):
        np.testing.assert_array_equal(solved.out, whole[runs[0].first : runs[0].last])
        (runs, solved) = next(batches)
    assert first.launched.count("deliver") == 2
    assert next(batches, None) is None


def test_kernels_that_do_nothing_are_not_waited_for_for_ever(
    make_cuda: MakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_cuda(**FEW)
    launch = engine.devices[0].launch
    monkeypatch.setattr(
        engine.devices[0], "launch", lambda name, *a: None if name == "solve" else launch(name, *a)
    )
    with pytest.raises(DeviceLost, match="did nothing"):
        engine.compute(noise(2))


def test_flow_that_is_not_finite_is_an_error(
    make_cuda: MakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parameters in range do not lead there, so an image is spoiled on its way."""
    engine = make_cuda(**FEW)
    launch = engine.devices[0].launch

    def spoil(name: str, job_address: int, *numbers: int) -> None:
        launch(name, job_address, *numbers)
        if name == "make_taps":
            n_pixels = engine._lanes[0].geometry.frame_pixels
            taps = at_section(engine, "taps", 2)
            spoiled = np.full(4 * n_pixels, np.nan, np.float32)
            engine.devices[0].send(spoiled, taps + 16 * n_pixels)

    monkeypatch.setattr(engine.devices[0], "launch", spoil)
    with pytest.raises(FlowprepError, match=r"theta = 0\.3: the flow is not finite"):
        engine.compute(noise(2))


def at_section(engine: Any, name: str, n_frames: int) -> int:
    lane = engine._lanes[0]
    plan = batches_module.lay_out(
        lane.geometry, engine._tvl1, [n_frames], Codes(), lane._address, 1, 1
    )
    return plan.addresses[name]


# --- CuPy ---


def test_a_cupy_device_does_what_the_stand_in_does(fake_cupy: Any, make_cuda: MakeCuda) -> None:
    clips = [noise(5), noise(3, 40, 117)]
    engine = get_engine("cuda", **FEW)
    for flow, want in zip(
        engine.compute_batch(clips), make_cuda(**FEW).compute_batch(clips), strict=True
    ):
        np.testing.assert_array_equal(flow, want)
    assert engine.build == "float32, cupy fake nvrtc 13.0 sm_120 Fake"
    assert fake_cupy.n_synchronized == 4
    ((code, options),) = fake_cupy.programs
    assert "#define MAX_STEPS 8" in code
    assert options == (
        *("--std=c++17", "--fmad=false", "--ftz=true"),
        "--gpu-architecture=sm_120",
    )


def test_a_gpu_that_nvrtc_does_not_know_gets_code_that_its_driver_compiles(fake_cupy: Any) -> None:
    assert device_module._machine_code(fake_cupy, (12, 1), exact=True) == b"PTX"
    (_, options) = fake_cupy.programs[-1]
    assert options[-2:] == ("--ftz=false", "--gpu-architecture=compute_120")


def test_what_nvrtc_says_is_told(fake_cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise fake_cupy.NVRTCError("NVRTC_ERROR_COMPILATION")

    monkeypatch.setattr(fake_cupy.nvrtc, "compileProgram", refuse)
    with pytest.raises(FlowprepError, match="NVRTC_ERROR_COMPILATION: error: expected") as refused:
        get_engine("cuda")
    assert "--engine cpu" in refused.value.hint


def test_a_home_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def no_home(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "cupy":
            raise PermissionError(13, "Permission denied", ".cupy")
        return real_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", no_home)
    with pytest.raises(FlowprepError, match=r"Permission denied.*set CUPY_CACHE_DIR"):
        get_engine("cuda")


def test_cupys_memory_error_halves_the_batch(fake_cupy: Any) -> None:
    engine = get_engine("cuda", **FEW)
    whole = engine.batch_pairs((200, 300))
    fake_cupy.largest = 32 << 20
    assert get_engine("cuda", **FEW).batch_pairs((200, 300)) < whole / 2


def test_another_error_of_cupy_is_a_lost_device(
    fake_cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = get_engine("cuda", **FEW)
    monkeypatch.setattr(fake_cupy.Error, "status", 700)
    fake_cupy.largest = 0
    with pytest.raises(DeviceLost, match="the CUDA device failed"):
        engine.compute(noise(2))


# --- devices ---


@pytest.mark.parametrize("wrong", ["Fast", "", 1, None])
def test_unknown_numerics_are_refused(wrong: Any) -> None:
    with pytest.raises(FlowprepError, match="numerics"):
        get_engine("cuda", numerics=wrong)


def stand_in_cupy(count: int, capability: str = "90") -> Any:
    class CUDARuntimeError(RuntimeError):
        pass

    def get_device_count() -> int:
        if count < 0:
            raise CUDARuntimeError("cudaErrorNoDevice")
        return count

    runtime = SimpleNamespace(getDeviceCount=get_device_count, CUDARuntimeError=CUDARuntimeError)
    device = lambda number: SimpleNamespace(compute_capability=capability)  # noqa: E731
    return SimpleNamespace(__version__="0", cuda=SimpleNamespace(runtime=runtime, Device=device))


def test_no_device_says_which_line_installs_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "_import_cupy", lambda: stand_in_cupy(-1))
    with pytest.raises(FlowprepError, match="cudaErrorNoDevice") as refused:
        get_engine("cuda")
    assert "flowprep[cuda13]" in refused.value.hint


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "_import_cupy", lambda: stand_in_cupy(2))
    with pytest.raises(FlowprepError, match="CUDA device 2 does not exist"):
        get_engine("cuda", device=2)


def test_an_old_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "_import_cupy", lambda: stand_in_cupy(1, "61"))
    with pytest.raises(FlowprepError, match=r"compute capability 6\.1"):
        get_engine("cuda")


def test_without_cupy_the_status_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    status = engine_status("cuda")
    assert not status.available
    assert "cupy" in status.detail
    assert "flowprep[cuda13]" in status.install


def test_naming_the_engine_where_there_is_none_ends_with_the_line_that_installs_it(
    cli: Callable[..., Any], make_video: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    make_video(tmp_path / "videos" / "a.mp4")
    options = ("--src", tmp_path / "videos", "--out", tmp_path / "out", "--executor", "local")
    ended = cli("extract", *options, "--engine", "cuda")
    assert ended.exit_code == 2
    assert "pip install 'flowprep[cuda13]'" in ended.output
    assert not list(tmp_path.glob("out/*.tar"))
