"""A run on logical Ray nodes in which only the making of a shard is replaced: a worker waits for a
known time. Prints what came of it as JSON.

    python tests/bench/simulated_cluster.py --nodes 8
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import ray
import simulated
from ray.cluster_utils import Cluster
from rich.console import Console

from flowprep.config import Settings
from flowprep.run import ray as run_ray
from flowprep.run import worker
from flowprep.run.job import PlannedShard, ShardJob
from flowprep.run.pool import Message, WorkerSpec
from flowprep.run.progress import TextDisplay
from flowprep.run.schedule import Schedule
from flowprep.shard.layout import Layout

Spans = dict[str, list[tuple[float, float]]]  # of each worker: from when to when it was on a shard


class WaitingActor(run_ray._Actor):
    """A worker that waits where others compute, and writes down when."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        pair_s = float(os.environ["SIMULATED_PAIR_S"])
        worker.run_shard = partial(simulated.wait_shard, pair_s=pair_s)  # type: ignore[assignment]

    def run(self, job: ShardJob) -> Message:
        began_s = time.monotonic()
        message = super().run(job)
        with (job.out / "times" / str(self._worker.number)).open("a") as log:
            log.write(f"{began_s} {time.monotonic()}\n")
        return message


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--workers", type=int, default=4, help="of a node")
    parser.add_argument("--shards", type=int, default=2000)
    parser.add_argument("--mean-s", type=float, default=2.0, help="of a shard")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fs", dir="/tmp"))  # short: Ray puts sockets into it
    try:
        print(json.dumps(simulate(folder, options)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def simulate(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    out, n_workers = folder / "out", options.nodes * options.workers
    for name in ("times", "_flowprep/shards", "_flowprep/tmp"):
        (out / name).mkdir(parents=True)
    shards = simulated.plan(simulated.draw_frames(options.shards, seed=0), out)
    pair_s = options.mean_s * len(shards) / sum(simulated.cost_s(one, 1.0) for one in shards)
    os.environ["SIMULATED_PAIR_S"] = str(pair_s)
    costs_s = [simulated.cost_s(one, pair_s) for one in shards]
    with _pool(folder / "r", options.nodes, options.workers) as pool:
        found = run(shards, pool)
    assert Layout(out).committed() == [one.shard for one in shards]
    return {
        "nodes": options.nodes,
        "workers": n_workers,
        "shards": len(shards),
        "shard, s, mean": options.mean_s,
        "shard, s, longest": max(costs_s),
        **found,
        **shares(spans(out / "times"), sum(costs_s)),
    }


@contextmanager
def _pool(folder: Path, n_nodes: int, per_node: int) -> Iterator[run_ray.RayPool]:
    """All workers of some logical nodes, ready."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": str(folder)}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(n_nodes):
        cluster.add_node(num_cpus=per_node, object_store_memory=80 << 20)
    run_ray.connect(cluster.address, None)
    spec = WorkerSpec(settings=Settings(engine="constant"))
    with mock.patch.object(run_ray, "_Actor", WaitingActor):
        pool = run_ray.RayPool([spec] * n_nodes * per_node)
    ray.wait(list(pool._running), num_returns=n_nodes * per_node)
    try:
        yield pool
    finally:
        pool.close()
        cluster.shutdown()


def run(shards: list[PlannedShard], pool: run_ray.RayPool) -> dict[str, float]:
    """Make them by the real Schedule, and count what the driver and the mailbox take for it."""
    display, n_told = TextDisplay(Console(stderr=True), quiet=False), 0

    def on_message(message: Message) -> None:
        nonlocal n_told
        n_told += 1
        display.on_message(message)

    before_s, mailbox_s, began_s = _cpu_s(), _mailbox_cpu_s(), time.monotonic()
    with display.running(shards):
        outcome = Schedule(shards, pool, on_message).run(lambda: None)
    wall_s, driver_s = time.monotonic() - began_s, _cpu_s() - before_s
    assert len(outcome.done) == len(shards)
    assert display.tally.counts["flows"] == sum(one.n_pairs for one in shards)
    return {
        "wall, s": wall_s,
        "messages": n_told,
        "driver, share of a core": driver_s / wall_s,
        "driver, CPU ms per shard": 1e3 * driver_s / len(shards),
        "driver, peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "mailbox, CPU ms per message": 1e3 * (_mailbox_cpu_s() - mailbox_s) / n_told,
    }


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _mailbox_cpu_s() -> float:
    """Of the mailboxes that run on this machine; there should be those of this run only."""
    ticks = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if (process / "cmdline").read_bytes().startswith(b"ray::_Mailbox"):
                after_name = (process / "stat").read_text().rpartition(")")[2].split()
                ticks += sum(map(int, after_name[11:13]))  # utime and stime
    return ticks / os.sysconf("SC_CLK_TCK")


def spans(times: Path) -> Spans:
    found: Spans = defaultdict(list)
    for path in times.iterdir():
        for line in path.read_text().splitlines():
            began, ended = line.split()
            found[path.name].append((float(began), float(ended)))
    return found


def shares(found: Spans, cost_s: float) -> dict[str, float]:
    """Of the workers' time from the first to the last moment of a shard, by their own clocks."""
    every = [span for of_one in found.values() for span in of_one]
    from_s, to_s = min(began for began, _ in every), max(ended for _, ended in every)
    total_s, last_s = len(found) * (to_s - from_s), max(began for began, _ in every)
    tail_s = sum(to_s - max(last_s, of_one[-1][1]) for of_one in found.values())
    gaps = sorted(b - a for of_one in found.values() for (_, a), (b, _) in pairwise(of_one))
    return {
        "efficiency": cost_s / total_s,
        "idle at the end": tail_s / total_s,
        "idle between shards": sum(gaps) / total_s,
        "messages and commits": (sum(ended - began for began, ended in every) - cost_s) / total_s,
        "next shard after ms, median": 1e3 * gaps[len(gaps) // 2],
        "next shard after ms, p95": 1e3 * gaps[len(gaps) * 95 // 100],
        "next shard after ms, longest": 1e3 * gaps[-1],
    }


if __name__ == "__main__":
    main()
