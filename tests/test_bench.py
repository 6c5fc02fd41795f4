"""`flowprep bench`: rates that are measured, and what follows from them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from flowprep.bench.outlook import Dataset, machine_s
from flowprep.bench.run import Found, Order, bench
from flowprep.bench.tell import as_dict
from flowprep.bench.together import measure
from flowprep.config import Settings
from flowprep.errors import FlowprepError
from flowprep.processes import usable_cores
from flowprep.run.pool import WorkerSpec
from flowprep.synth import Motion, render

Cli = Callable[..., Result]

ENGINES = """
import time
import numpy as np

class Sleepy:
    build, params = "sleepy", {}
    def __init__(self, *, device=None, threads=1):
        pass
    def compute(self, gray_THW):
        time.sleep(self.pair_s * (len(gray_THW) - 1))
        return np.ones((len(gray_THW) - 1, 2, *gray_THW.shape[1:]), np.float32)
    def compute_batch(self, clips):
        return [self.compute(gray_THW) for gray_THW in clips]
    def batch_pairs(self, size_HW):
        return 1

class Quick(Sleepy):
    name, pair_s = "quick", 0.01

class Slow(Sleepy):
    name, pair_s = "slow", 0.2

class Broken(Sleepy):
    name, pair_s = "broken", 0.0
    def compute(self, gray_THW):
        raise ValueError("out of order")

class Dies(Sleepy):
    name, pair_s = "dies", 0.0
    def compute(self, gray_THW):
        import os
        os._exit(7)
"""
POINTS = "[flowprep.engines]\n" + "".join(
    f"{name.lower()} = sleepy_engines:{name}\n" for name in ("Quick", "Slow", "Broken", "Dies")
)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Engines of another package, whose pairs take a known time; workers find them too."""
    folder = tmp_path_factory.mktemp("others")
    info = folder / "sleepy_engines-1.dist-info"
    info.mkdir()
    (folder / "sleepy_engines.py").write_text(ENGINES)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sleepy-engines\nVersion: 1\n")
    (info / "entry_points.txt").write_text(POINTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


@pytest.fixture(scope="module")
def found(others: None) -> Found:
    """One real run, with two engines whose speed is known."""
    dataset = Dataset(hours=10, fps=12.5, short_side=128)
    order = Order(engines=["quick", "slow"], budget_s=0.3, dataset=dataset)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flowprep.bench.clip.N_FRAMES", 9)  # half of them: rendering takes long
        return bench(order, lambda _: None)


@pytest.fixture
def shown(cli: Cli, found: Found, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """What the command prints of that run."""
    monkeypatch.setattr("flowprep.bench.run.bench", lambda order, say: found)
    return lambda *options: cli("bench", *options)


def test_the_rates_are_those_of_the_engines(shown: Callable[..., Result]) -> None:
    """A sleep is never shorter than asked for, so these rates are bounds; half is for the rest."""
    engines = {one["engine"]: one for one in json.loads(shown("--json").stdout)["engines"]}
    for name, most in {"quick": 100.0, "slow": 5.0}.items():
        one = engines[name]
        assert most / 8 < one["flows_per_s_one"] <= most
        assert one["flows_per_s_one"] / 4 < one["flows_per_s_all"] <= most * usable_cores()
        assert one["workers"] == usable_cores()
        assert one["pixel_iterations_per_s_one"] is None  # nobody knows what it does
    assert engines["slow"]["pairs_one"] < engines["quick"]["pairs_one"]


def test_iterations_are_told_of_engines_that_iterate_by_the_same_rules(found: Found) -> None:
    as_cpu = replace(found, engines=[replace(found.engines[0], name="cpu")])
    told = as_dict(as_cpu)
    (one,) = told["engines"]
    per_pair, cap = told["pixel_iterations_per_pair"], 5 * 300 * 215_941  # warps, pixels of levels
    assert 0.01 * cap < per_pair < cap
    assert one["pixel_iterations_per_s_one"] / one["flows_per_s_one"] == pytest.approx(per_pair)
    assert one["pixel_iterations_per_s_all"] / one["flows_per_s_all"] == pytest.approx(per_pair)


def test_what_is_around_the_flow_is_measured_by_stages(shown: Callable[..., Result]) -> None:
    found = json.loads(shown("--json").stdout)
    stages = found["around_stages_ms"]
    assert all(stages[name] > 0 for name in ("decode", "encode rgb", "encode flow", "tar"))
    assert 0.5 < sum(stages.values()) / found["around_ms_per_frame"] < 1.5


def test_what_a_dataset_takes_follows_from_what_was_measured(shown: Callable[..., Result]) -> None:
    found = json.loads(shown("--json").stdout)
    n_frames = 10 * 60 * 60 * 12.5
    quarter = 0.25  # of the clip's pixels: half as wide and half as high
    around_s = found["around_ms_per_frame"] / 1000 / found["cores"]
    assert found["frames"] == n_frames == 450_000
    assert found["bytes"] == pytest.approx(n_frames * 340 * 256 * quarter * (0.058 + 0.042))
    assert any("450,000 frames" in line for line in found["assumptions"])
    for one in found["engines"]:
        seconds = n_frames * quarter * (1 / one["flows_per_s_all"] + around_s)
        told = {int(n): s for n, s in one["seconds"].items()}
        assert told == pytest.approx({n: seconds / n for n in (1, 8, 64)})


def test_the_tables_hold_every_engine_and_the_assumptions(shown: Callable[..., Result]) -> None:
    text = shown().stdout
    for part in ("quick", "slow", "1 machine", "64 machines", "ms of one core", "979.2 MB"):
        assert part in text
    assert "- source videos of the stored size" in text


def test_a_gpu_works_while_the_cores_do_the_rest() -> None:
    """An hour at 25 frames a second is 90,000 frames; 4 cores do 500 of them a second."""
    hour = Dataset(hours=1, fps=25, short_side=256)
    assert machine_s(hour, 1000.0, 0.008, 4, on_gpu=True) == pytest.approx(180)
    assert machine_s(hour, 100.0, 0.008, 4, on_gpu=True) == pytest.approx(900)
    assert machine_s(hour, 100.0, 0.008, 4, on_gpu=False) == pytest.approx(1080)
    assert machine_s(hour, 1000.0, 0.008, 4, on_gpu=False) == pytest.approx(270)


@pytest.mark.parametrize(
    ("name", "told"),
    [("broken", "ValueError: out of order"), ("dies", "its process ended with exit code 7")],
)
def test_an_engine_that_fails_is_told(others: None, name: str, told: str) -> None:
    specs = [WorkerSpec(settings=Settings(engine=name))]
    gray_THW = np.arange(3, dtype=np.uint8)[:, None, None] + np.zeros((3, 16, 16), np.uint8)
    with pytest.raises(FlowprepError, match=f"engine '{name}' failed .*: {told}"):
        measure(specs, gray_THW, 0.1)


def test_an_engine_that_nobody_knows_is_told(cli: Cli) -> None:
    result = cli("bench", "--engine", "nonesuch")
    assert result.exit_code == 2
    assert "unknown engine 'nonesuch'" in result.stderr


@pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="CUDA is here")
def test_an_engine_that_is_missing_is_told_with_the_line_that_installs_it(cli: Cli) -> None:
    result = cli("bench", "--engine", "cuda")
    assert result.exit_code == 2
    assert "pip install 'flowprep[cuda13]'" in result.stderr


def test_the_clip_moves_as_it_is_described() -> None:
    """4 right and 2 down, by the frames themselves: the centre of the first is in the second."""
    from flowprep.bench.clip import DESCRIPTION, MOTION

    frames: Any = render(Motion(dx_px=MOTION.dx_px, dy_px=MOTION.dy_px), 2, 64, 64)
    assert "4 px right and 2 px down" in DESCRIPTION
    assert (frames[0, 10:50, 10:50] == frames[1, 12:52, 14:54]).mean() > 0.99
