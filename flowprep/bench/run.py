"""Measure this machine: the engines, what is around them, and what follows for a dataset."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from flowprep.bench.around import Around, measure_around
from flowprep.bench.clip import BenchClip, render_clip, solve
from flowprep.bench.outlook import MACHINES, Dataset, machine_s
from flowprep.bench.together import Rates, measure
from flowprep.config import Settings
from flowprep.errors import FlowprepError
from flowprep.flow.base import EngineStatus, engine_status, registry
from flowprep.processes import process_pool, usable_cores
from flowprep.run.executors import Resources, choose_engine, local_specs

T = TypeVar("T")
MANY_SHARDS = 1 << 20
"""More than there are cores: no core is idle."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the user asked for."""

    engines: list[str] = field(default_factory=list)  # empty: all that are live
    budget_s: float
    dataset: Dataset


@dataclass(frozen=True, kw_only=True)
class EngineFound:
    """An engine's rates on this machine, and the seconds that the dataset takes by it."""

    name: str
    build: str
    rates: Rates
    seconds: dict[int, float]  # by number of machines


@dataclass(frozen=True, kw_only=True)
class Found:
    order: Order
    n_cores: int
    pixel_iterations: float | None  # of a pair, by OpenCV CUDA's rules
    around: Around
    engines: list[EngineFound]


def bench(order: Order, say: Callable[[str], None]) -> Found:
    """Measure. Raises FlowprepError when a named engine is not here, or one fails."""
    engines = [choose_engine(Settings(engine=name)) for name in order.engines] or _live()
    with TemporaryDirectory() as folder:
        say("rendering a clip")
        clip = render_clip(Path(folder))
        rates = {name: _rates(name, clip, order.budget_s, say) for name, _ in engines}
        say("making shards of it")
        with process_pool(1) as pool:  # one thread each in its libraries
            around, iterations = _result(pool.submit(_around_of, clip))
    found = [_found(order.dataset, *engine, rates[engine[0]], around) for engine in engines]
    return Found(
        order=order,
        n_cores=usable_cores(),
        pixel_iterations=iterations,
        around=around,
        engines=found,
    )


def _live() -> list[tuple[str, str]]:
    """(name, build) of every live engine; `constant`, which computes nothing, only when named."""
    names = [name for name in registry() if name != "constant"]
    with process_pool(1) as pool:  # a CUDA context would stay in this one
        statuses = _result(pool.submit(_statuses, names))
    return [(status.name, status.detail) for status in statuses if status.available]


def _statuses(names: list[str]) -> list[EngineStatus]:
    return [engine_status(name) for name in names]


def _around_of(clip: BenchClip) -> tuple[Around, float | None]:
    """And the pixel-iterations of a pair."""
    solved = solve(clip.gray_THW)
    around = measure_around(clip.video, solved.flow_T2HW if solved else None)
    return around, solved.pixel_iterations if solved else None


def _result(future: Future[T]) -> T:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise FlowprepError(
            "a process of the benchmark died", "choose some engines with --engine"
        ) from error


def _rates(name: str, clip: BenchClip, budget_s: float, say: Callable[[str], None]) -> Rates:
    specs = local_specs(Resources(executor="local"), Settings(engine=name), MANY_SHARDS)
    say(f"engine {name}: one worker" + (f", then {len(specs)}" if len(specs) > 1 else ""))
    return measure(specs, clip.gray_THW, budget_s)


def _found(dataset: Dataset, name: str, build: str, rates: Rates, around: Around) -> EngineFound:
    flows_per_s, on_gpu = rates.flows_per_s_together, registry()[name].uses_gpu
    all_s = machine_s(dataset, flows_per_s, around.frame_s, usable_cores(), on_gpu)
    seconds = {n: all_s / n for n in MACHINES}
    return EngineFound(name=name, build=build, rates=rates, seconds=seconds)
