"""What docs/hours.md rests on: the rates of one engine on this machine, and a run on real videos.

    python tests/bench/rates.py --engine cpu
    python tests/bench/rates.py --engine opencv-cpu --each-s 1

Medians over rounds of `flowprep bench`; then one extraction of the sample videos (`--each-s`: so
many seconds of each), the start of its workers included. Rewrites docs/hours.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import hours
import machine
from efficiency import extract_run

REAL = (
    *("arm_wrestling.mp4", "mmaction2_test.avi", "nasa_13013.mp4"),
    *("v_GGSY1Qvo990.mp4", "v_ZNVhz7ctTq0.mp4"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement of a round")
    parser.add_argument("--each-s", type=float, default=60.0, help="seconds of each sample video")
    options = parser.parse_args()
    loads = [load()]
    rounds = [bench_round(options.engine, options.seconds, loads) for _ in range(options.rounds)]
    with tempfile.TemporaryDirectory() as folder:
        rows = [f"{machine.SHARED_VIDEOS / name},0,{options.each_s}" for name in REAL]
        chosen = ["--engine", options.engine, "--executor", "local"]
        run = extract_run(Path(folder), rows, chosen)
    row = {
        "engine": options.engine,
        **{name: statistics.median(one[name] for one in rounds) for name in rounds[0]},
        "rounds": rounds,
        "load averages": [*loads, load()],
        "real videos": {name: run[name] for name in ("flows", "identical_pairs", "flows_per_s")},
    }
    print(json.dumps(row, indent=1))
    facts = machine.gpu() if options.engine in hours.ON_GPU else {}
    print(machine.save(f"rates_{options.engine}", row, **facts))
    hours.write()


def load() -> float:
    return round(os.getloadavg()[0], 2)


def bench_round(engine: str, seconds: float, loads: list[float]) -> dict[str, Any]:
    command = [sys.executable, "-m", "flowprep", "bench", "--json", "--engine", engine]
    command += ["--seconds", str(seconds)]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    loads.append(load())
    (one,) = found["engines"]
    return {
        "cores": found["cores"],
        "workers": one["workers"],
        "flows_per_s_one": round(one["flows_per_s_one"], 3),
        "flows_per_s_all": round(one["flows_per_s_all"], 3),
        "around_ms_per_frame": round(found["around_ms_per_frame"], 3),
    }


if __name__ == "__main__":
    main()
