"""What there is to do at a scale, in the order in which it is best begun."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.motionbench.arms import ARMS, CURVE, PROBED, WAYS
from pipelines.motionbench.bench import Bench
from pipelines.motionbench.dataset import Task
from pipelines.motionbench.probing import CostJob, ProbeJob
from pipelines.motionbench.scales import Space
from pipelines.motionbench.training import TrainJob, tries

Job = TrainJob | ProbeJob | CostJob
SPACES: tuple[Space, ...] = ("C", "P")
DECODERS = ("simple", "spatial", "pwc")


def plan(bench: Bench) -> list[Job]:
    """Searches, then seed after seed of every arm and its probes, then the curves.

    A result that is needed comes before what needs it.
    """
    jobs: list[Job] = [job for space in SPACES for job in _searches(bench, space)]
    for seed in bench.scale.seeds:
        jobs += _seed(bench, seed)
    jobs.insert(_after(jobs, bench), CostJob(main_task(bench, "C"), bench.scale.seeds[0]))
    return jobs + [job for seed in bench.scale.seeds for job in _curves(bench, seed)]


def _after(jobs: list[Job], bench: Bench) -> int:
    """Behind the first seed."""
    names = [job.name for job in jobs]
    return 1 + names.index(_seed(bench, bench.scale.seeds[0])[-1].name)


def main_task(bench: Bench, space: Space) -> Task:
    return Task(space, bench.scale.n_train[-1])


def tasks(bench: Bench) -> list[Task]:
    """Every table of labels that there is to write."""
    sizes = [Task(s, n) for s in SPACES for n in bench.scale.n_train]
    return sizes + [Task("P", bench.scale.n_train[-1], bias) for bias in bench.scale.biases]


def _searches(bench: Bench, space: Space) -> Iterator[TrainJob]:
    for arm in ARMS:
        if space in arm.spaces:
            yield from tries(bench, main_task(bench, space), arm)


def _seed(bench: Bench, seed: int) -> list[Job]:
    """Every arm on the main training sets, and the probes of some."""
    jobs: list[Job] = [
        TrainJob(main_task(bench, space), arm.name, seed)
        for space in SPACES
        for arm in ARMS
        if space in arm.spaces
    ]
    return jobs + list(_probes(bench, seed))


def _probes(bench: Bench, seed: int) -> Iterator[ProbeJob]:
    task = main_task(bench, "C")
    for arm in PROBED:
        for decoder in DECODERS:
            yield ProbeJob(task, arm, seed, decoder)  # type: ignore[arg-type]
        yield ProbeJob(task, arm, seed, "pwc", finetune=True)
        if seed == bench.scale.seeds[0]:
            yield ProbeJob(task, arm, seed, "simple", over_layers=True)


def ways(bench: Bench) -> list[Job]:
    """What is tried to bring D3D to two streams; after all that `plan` says."""
    task = main_task(bench, "C")
    return [TrainJob(task, arm.name, seed) for arm in WAYS for seed in bench.scale.seeds]


def _curves(bench: Bench, seed: int) -> Iterator[TrainJob]:
    scale = bench.scale
    smaller = [Task(s, n) for s in scale.curve_spaces for n in scale.n_train[:-1]]
    biased = [Task("P", scale.n_train[-1], bias) for bias in scale.biases]
    for task in smaller + biased:
        for arm in CURVE:
            yield TrainJob(task, arm, seed)
