"""How far a run scales, with shards that only take time: on logical Ray nodes, and in virtual time.

    python tests/bench/simulation.py                 # half an hour, most of it waiting
    python tests/bench/simulation.py --virtual-only  # two minutes

Ray: 2,000 shards of 2 s on 1, 2, 4 and 8 nodes of 4 workers, everything real but the making of a
shard. Virtual: the real Schedule and display, 100 to 1,000 workers, shards of 5 minutes. Lengths of
shards have a long tail (`uneven`) or are all the same (`even`); what a frame costs differs from
shard to shard, and the scheduler does not know it.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import machine
import simulated
import simulated_schedule
from rich.console import Console

from flowprep.run.progress import TextDisplay

NODES = (1, 2, 4, 8)
SHARD_S = 300.0
EVEN_FRAMES = 8192
SLOTS = 8
CHURN = simulated_schedule.Churn(mean_life_s=24 * 3600, mean_away_s=600)
"""A cluster that loses a node of a hundred every quarter of an hour."""
CASES: list[tuple[str, int, int, bool]] = [
    *(("uneven", w, n, c) for w, n in ((100, 20_000), (1000, 20_000)) for c in (False, True)),
    ("uneven", 1000, 100_000, True),
    *(("even", 1000, 1000 * per_worker, False) for per_worker in (5, 10, 20, 50, 100)),
]
"""Lengths of the shards, workers, shards, whether nodes come and go."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--virtual-only", action="store_true")
    options = parser.parse_args()
    rows: dict[str, Any] = {}
    if options.virtual_only:
        rows["ray"] = json.loads((machine.RESULTS / "simulation.json").read_text())["rows"]["ray"]
    else:
        rows["ray"] = [on_ray(n_nodes) for n_nodes in NODES]
    for row in rows["ray"]:
        row["of n times one node"] = row["efficiency"] / rows["ray"][0]["efficiency"]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        rows["virtual"] = pool.starmap(in_virtual_time, CASES, chunksize=1)
    for table in rows.values():
        print(machine.markdown(table), end="\n\n")
    print(machine.save("simulation", rows))


def on_ray(n_nodes: int) -> dict[str, Any]:
    command = [sys.executable, Path(__file__).with_name("simulated_cluster.py")]
    load = os.getloadavg()[0]
    done = subprocess.run(
        [*command, "--nodes", str(n_nodes)], stdout=subprocess.PIPE, text=True, check=True
    )
    found = {k: rounded(v) for k, v in json.loads(done.stdout).items()}
    return found | {"load average before": round(load, 1)}


def in_virtual_time(lengths: str, n_workers: int, n_shards: int, churns: bool) -> dict[str, Any]:
    is_even = lengths == "even"
    frames = [EVEN_FRAMES] * n_shards if is_even else simulated.draw_frames(n_shards, seed=0)
    shards = simulated.plan(frames, Path("out"))
    pair_s = SHARD_S * n_shards / sum(simulated.cost_s(one, 1.0) for one in shards)
    costs_s = {one.shard: simulated.cost_s(one, pair_s) for one in shards}
    display = TextDisplay(Console(file=io.StringIO()), quiet=False)
    with display.running(shards):
        started_s = time.process_time()
        outcome, pool = simulated_schedule.simulate(
            shards,
            lambda one: costs_s[one.shard],
            n_nodes=-(-n_workers // SLOTS),
            slots=SLOTS,
            churn=CHURN if churns else simulated_schedule.STABLE,
            on_message=display.on_message,
        )
        cpu_s = time.process_time() - started_s - pool.cpu_s
    assert sorted(done.shard for done in outcome.done) == [one.shard for one in shards]
    assert pool.seen.committed.keys() == costs_s.keys()
    return {
        "shards": n_shards,
        "lengths": lengths,
        "workers": n_workers,
        "nodes come and go": churns,
        "tries that died": pool.seen.deaths,
        "lost": len(outcome.lost),
        **{
            name: rounded(value) for name, value in simulated_schedule.efficiency(pool.seen).items()
        },
        "driver, CPU ms per shard": rounded(1e3 * cpu_s / n_shards),
        "driver, peak MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
    }


def rounded(value: float) -> float:
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
