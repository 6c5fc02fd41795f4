"""The registry, `auto`, streaming and the shared parameter checks."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from flowprep.errors import FlowprepError
from flowprep.flow import base, distinct
from flowprep.flow.base import EngineEntry, TVL1Params
from flowprep.quantize import MAPS, Quantizer, make_quantizer
from flowprep.records import CodedFlow


class Counting:
    """Flow = difference of the two frames' first pixels; remembers how many pairs it was given."""

    name = "counting"
    build = "counting 1"

    def __init__(self, *, device: int | None = None, threads: int = 1, gain: float = 1.0) -> None:
        self.params = {"gain": gain, "threads": threads, "device": device}
        self.n_pairs: list[int] = []

    def compute(self, gray_THW: np.ndarray) -> np.ndarray:
        self.n_pairs.append(len(gray_THW) - 1)
        first = gray_THW[:, 0, 0].astype(np.float32)
        flow = np.empty((len(gray_THW) - 1, 2, *gray_THW.shape[1:]), np.float32)
        flow[:] = np.diff(first)[:, None, None, None]
        return flow

    def compute_batch(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [self.compute(gray) for gray in clips]


def broken(**_: object) -> object:
    raise ImportError("libnothing.so is missing")


def frames(*levels: int) -> np.ndarray:
    return np.array(levels, np.uint8)[:, None, None] * np.ones((1, 4, 5), np.uint8)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two engines: "good", and "gone", which lacks a library."""
    entries = {
        "good": EngineEntry(f"{__name__}:Counting", "counts", "always there"),
        "gone": EngineEntry(f"{__name__}:broken", "never", "pip install nothing"),
    }
    monkeypatch.setattr(base, "ENGINES", entries)
    monkeypatch.setattr(base, "entry_points", lambda group: [])
    monkeypatch.setattr(EngineEntry, "load", lambda entry: globals()[entry.target.split(":")[1]])


def test_every_engine_of_ours_is_registered_with_a_summary_and_a_way_to_get_it() -> None:
    found = base.registry()
    assert {"opencv-cuda", "opencv-cpu", "reference", "constant"} <= set(found)
    assert all(entry.summary and entry.install for entry in found.values())
    assert set(base.AUTO_ORDER) <= set(found) - {"constant", "reference"}


def test_an_engine_gets_device_threads_and_its_parameters(registered: None) -> None:
    engine = base.get_engine("good", device=3, threads=2, gain=0.5)
    assert engine.params == {"gain": 0.5, "threads": 2, "device": 3}


def test_an_unknown_engine_is_named_with_all_that_exist(registered: None) -> None:
    with pytest.raises(FlowprepError) as unknown:
        base.get_engine("farneback")
    assert "'farneback'" in unknown.value.message
    assert all(name in unknown.value.hint for name in ("auto", "good", "gone"))


def test_a_missing_engine_says_what_is_missing_and_how_to_get_it(registered: None) -> None:
    with pytest.raises(FlowprepError) as missing:
        base.get_engine("gone")
    assert "libnothing.so is missing" in missing.value.message
    assert missing.value.hint == "pip install nothing"


def test_status_tells_a_live_engine_from_a_missing_one(registered: None) -> None:
    live, gone = base.engine_status("good"), base.engine_status("gone")
    assert (live.available, live.detail) == (True, "counting 1")
    assert not gone.available
    assert "libnothing.so" in gone.detail
    assert gone.install == "pip install nothing"


def test_auto_takes_the_first_live_engine_and_tells_what_it_passed_over(
    registered: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "AUTO_ORDER", ("gone", "good"))
    name, why = base.resolve_auto()
    assert name == "good"
    assert why == "counting 1; not here: gone (flowprep engines tells why)"


def test_auto_without_any_live_engine_is_an_error(
    registered: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "AUTO_ORDER", ("gone",))
    with pytest.raises(FlowprepError, match=r"libnothing\.so is missing"):
        base.resolve_auto()


def test_an_installed_package_brings_an_engine_but_cannot_replace_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    brought = [
        EntryPoint("theirs", "flowprep.flow.constant:Constant", "flowprep.engines"),
        EntryPoint("reference", "elsewhere:Evil", "flowprep.engines"),
    ]
    monkeypatch.setattr(base, "entry_points", lambda group: brought)
    assert base.get_engine("theirs").name == "constant"
    assert base.registry()["reference"].target == "flowprep.flow.reference:Reference"


def test_stream_carries_the_last_frame_and_never_computes_a_pair_twice() -> None:
    engine = Counting()
    chunks = [frames(1, 3), frames(6), frames(10, 15, 21)]
    got = [flow[:, 0, 0, 0].tolist() for flow in distinct.stream(engine, chunks)]
    assert got == [[2], [3], [4, 5, 6]]
    assert engine.n_pairs == [1, 1, 3]


def test_stream_of_single_frames_starts_with_no_flow() -> None:
    got = list(distinct.stream(Counting(), [frames(1), frames(4)]))
    assert [flow.shape for flow in got] == [(0, 2, 4, 5), (1, 2, 4, 5)]


def test_identical_pairs_are_zero_and_not_computed() -> None:
    engine = Counting()
    flow = distinct.compute_distinct(engine, frames(7, 7, 9, 12, 12, 12, 20))
    assert flow[:, 0, 0, 0].tolist() == [0, 2, 3, 0, 0, 8]
    assert engine.n_pairs == [2, 1]


class CountingCodes(Counting):
    """Gives codes as well."""

    def compute_codes_batch(
        self, clips: Sequence[np.ndarray], quantizer: Quantizer
    ) -> list[CodedFlow]:
        return [quantizer.coded(self.compute(gray)) for gray in clips]


@pytest.mark.parametrize("name", MAPS)
def test_identical_pairs_get_the_code_of_zero_flow_and_are_not_computed(name: str) -> None:
    engine, quantizer = CountingCodes(), make_quantizer(name, 20)
    clips = [frames(7, 7, 9, 12, 12, 12, 20), frames(3, 3), frames(3, 6), frames(4)]
    coded = distinct.compute_distinct_codes_batch(engine, clips, quantizer)
    assert engine.n_pairs == [2, 1, 1]
    zero_code = {"symmetric": 128, "i3d": 128, "i3d-floor": 127, "int16": 32768}[name]
    for flow, steps in zip(coded, ([0, 2, 3, 0, 0, 8], [0], [3], []), strict=True):
        assert flow.codes.shape == (len(steps), 8, 5)
        is_zero = (flow.codes == zero_code).all(axis=(1, 2))
        assert is_zero.tolist() == [step == 0 for step in steps]
        np.testing.assert_allclose(flow.max_px, np.sqrt(2) * np.array(steps), rtol=1e-6)
        np.testing.assert_allclose(flow.sum_px, 20 * flow.max_px, rtol=1e-6)
        assert not flow.n_beyond.any()


def test_identical_means_every_pixel() -> None:
    gray = frames(5, 5, 5)
    gray[1, 3, 4] = 6
    gray = np.concatenate([gray, gray[-1:]])
    assert distinct.identical_pairs(gray).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_scales", 0),
        ("n_scales", 2.5),
        ("n_warps", 0),
        ("n_iterations", -1),
        ("n_iterations", True),
        ("tau", 0),
        ("tau", "0.25"),
        ("lambda_", -0.1),
        ("theta", float("inf")),
        ("epsilon", -0.01),
        ("epsilon", float("nan")),
        ("scale_step", 1.0),
        ("scale_step", 0.0),
    ],
)
def test_a_wrong_parameter_says_what_value_and_what_is_allowed(name: str, value: object) -> None:
    with pytest.raises(FlowprepError) as wrong:
        TVL1Params(**{name: value})
    assert f"{name} = {value!r}" in wrong.value.message
    assert "give a " in wrong.value.hint
    assert str(getattr(TVL1Params(), name)) in wrong.value.hint


def test_the_edges_of_what_is_allowed_pass() -> None:
    TVL1Params(n_scales=1, n_warps=1, n_iterations=1, epsilon=0, tau=1, scale_step=0.95)
