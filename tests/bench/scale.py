"""From a thousand videos to a million: plan, resume, index, report; and how fast files are probed.

    python tests/bench/scale.py [--sizes 1000 10000 ...] [--rounds 3] [--no-probing]

The videos are files of no content with the manifest that probing would leave, the finished shards
commit marks without a tar; flowprep runs on them as on any other, each time in a process of its
own. Of the rounds the one that took least processor time is told. Sizes that are not measured now
stay in the result as they were. Needs 3 GB below --folder, whose inodes must do for the largest
size, and the sample videos beside the checkout for probing.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import machine
import report
import scale_probing
from scale_made import make_files, write_manifest, write_marks

from flowprep.shard.layout import Layout
from flowprep.shard.plan import read_plan

SIZES = (1000, 10_000, 100_000, 670_000, 1_000_000)
COMMITTED = 20_000
"""Shards that are there when a run goes on; of a small dataset two thirds."""
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--no-probing", action="store_true")
    options = parser.parse_args()
    tables = measured_before()
    rows = [row for row in tables["steps"] if row["videos"] not in options.sizes]
    for size in options.sizes:
        rows += of_size(size, options.rounds, options.folder)
    rows.sort(key=lambda row: int(row["videos"]))
    tables |= {"steps": rows, "growth": list(growth(rows))}
    if not options.no_probing:
        tables["probing"] = scale_probing.rows(options.rounds)
    for table in tables.values():
        print(machine.markdown(table), end="\n\n")
    print(machine.save("scale", tables))


def measured_before() -> dict[str, list[Row]]:
    path = machine.RESULTS / "scale.json"
    empty: dict[str, list[Row]] = {"steps": [], "growth": [], "probing": []}
    return dict(json.loads(path.read_text())["rows"]) if path.exists() else empty


def of_size(n_videos: int, rounds: int, folder: Path) -> Iterator[Row]:
    """Each step of a dataset of so many videos."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        source, layout = Path(name) / "src", Layout(Path(name) / "out")
        make_files(source, n_videos)
        write_manifest(source, layout)
        for step, make_ready, run in _steps(source, layout):
            facts = best(make_ready, run, rounds)
            row = {"step": step, "videos": n_videos, **facts}
            print(json.dumps(row), flush=True)
            yield row


def _steps(
    source: Path, layout: Layout
) -> Iterator[tuple[str, Callable[[], object], Callable[[], Row]]]:
    """(name, what is done before each round, the round)."""

    def forget(*paths: Path) -> None:
        for path in paths:
            path.unlink(missing_ok=True)

    def start() -> Row:
        return own_process("start", source, layout)

    def end() -> Row:
        return own_process("end", source, layout)

    page = layout.out.parent / "page.html"
    command = ["report", str(layout.out), "--samples", "0", "--out", str(page)]
    made = (layout.index, layout.failures, layout.dataset)
    yield "plan", lambda: forget(layout.plan, layout.settled), start
    n_shards = len(read_plan(layout.plan).shards)
    write_marks(layout, min(COMMITTED, n_shards * 2 // 3))
    yield "resume", lambda: None, start
    write_marks(layout, n_shards)
    yield "index", lambda: forget(*made), end
    yield "report", lambda: forget(page), lambda: dict(report.measure(command, 0))


def own_process(step: str, source: Path, layout: Layout) -> Row:
    command = [sys.executable, Path(__file__).with_name("scale_steps.py"), step, source, layout.out]
    env = os.environ | {"BEGAN_S": repr(time.time())}
    done = subprocess.run(command, stdout=subprocess.PIPE, env=env, check=True)
    found: Row = json.loads(done.stdout)
    return found


def best(make_ready: Callable[[], object], run: Callable[[], Row], rounds: int) -> Row:
    told = []
    for _ in range(rounds):
        make_ready()
        load = os.getloadavg()[0]
        told.append(run() | {"load average before": load})
    least = min(told, key=lambda facts: float(facts["cpu_s"]))
    least["wall_s"] = min(facts["wall_s"] for facts in told)
    return {k: round(v, 2) if isinstance(v, float) else v for k, v in least.items()}


def growth(rows: list[Row]) -> Iterator[Row]:
    """Slopes in log-log of processor time and memory, from a size to ten times it."""
    of_size = {(row["step"], row["videos"]): row for row in rows}
    for (step, videos), less in of_size.items():
        if more := of_size.get((step, 10 * videos)):
            slopes = {
                f"slope of {name}": round(math.log10(more[name] / less[name]), 2)
                for name in ("cpu_s", "peak_mb")
            }
            yield {"step": step, "from": videos, "to": 10 * videos, **slopes}


if __name__ == "__main__":
    main()
