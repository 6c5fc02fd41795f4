"""One step of scale.py in a process of its own; prints what it took as JSON.

    python tests/bench/scale_steps.py start|end SRC OUT

start: `flowprep extract` until the first shard would be handed to a worker. It ends there as if it
were killed.
end: `flowprep extract` where every shard is there: the tables and dataset.json are written.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from scale_made import SETTINGS

from flowprep.run import extract, prepare
from flowprep.run.executors import Resources
from flowprep.run.pool import Message, Ready
from flowprep.run.progress import make_display
from flowprep.run.workplace import Here

RESOURCES = Resources(executor="local")
STAGES: dict[str, list[tuple[ModuleType, str]]] = {
    "list": [(prepare, "_source")],
    "read_manifest": [(prepare, "_cached")],
    "compare": [(prepare, "_probed")],
    "clips": [(prepare, "kept_clips")],
    "plan": [(prepare, "planned"), (prepare, "make_plan"), (prepare, "are_planned")],
    "write_plan": [(extract, "_save_plan")],
    "jobs": [(extract, "planned_shards")],
    "finalise": [(extract, "_finalise")],
}
"""Functions of flowprep whose seconds are told apart; the total is of all there is."""
took: defaultdict[str, float] = defaultdict(float)


class FirstShard:
    """A worker that is ready at once, and ends the process when it is given a shard."""

    def wait(self, timeout_s: float) -> list[tuple[int, Message]]:
        return [(0, Ready(worker=0, machine="here"))]

    def submit(self, worker: int, job: Any) -> NoReturn:
        tell(first_shard=job.shard, clips=len(job.tasks))
        os._exit(0)


class Waiting(Here):
    @contextmanager
    def open_pool(self, settings: Any, n_jobs: int) -> Iterator[Any]:
        took["shards_to_make"] = n_jobs
        yield FirstShard()


@contextmanager
def workplace(resources: Resources, display: Any) -> Iterator[Waiting]:
    yield Waiting(resources)


def told(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            took[f"{name}_s"] += time.perf_counter() - wall_s
            took[f"{name}_cpu_s"] += time.process_time() - cpu_s

    return timed


def tell(**facts: Any) -> None:
    cpu = os.times()
    shown = {
        "wall_s": time.time() - float(os.environ["BEGAN_S"]),
        "cpu_s": cpu.user + cpu.system,
        "peak_mb": peak_mb(),
        **took,
    }
    print(json.dumps(facts | {name: round(value, 3) for name, value in shown.items()}), flush=True)


def peak_mb() -> float:
    """Of this program; getrusage would tell that of its parent too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e3


def main() -> None:
    step, source, out = sys.argv[1:]
    for name, functions in STAGES.items():
        for module, function in functions:
            setattr(module, function, told(name, getattr(module, function)))
    extract.free_bytes = lambda folder: 1 << 60  # nothing is made
    if step == "start":
        extract.open_workplace = workplace
    request = prepare.Request(src=source, out=out, settings=SETTINGS, resources=RESOURCES)
    summary = extract.extract(request, make_display(False, True))
    tell(samples=summary.samples, failures=len(summary.failures))


if __name__ == "__main__":
    main()
