"""The tables of docs/hours.md, out of the measured rates and the simulation.

python tests/bench/hours.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import machine
from data_sets import DATA_SETS, DataSet

from flowprep.bench.outlook import machine_s
from flowprep.config import Settings
from flowprep.run.estimate import BYTES_PER_PIXEL

PAGE = Path(__file__).resolve().parents[2] / "docs" / "hours.md"
MARKED = re.compile(r"(<!-- table: (\w+) -->).*?(<!-- end -->)", re.DOTALL)
ENGINES = ("cpu", "opencv-cpu", "cuda", "opencv-cuda")
ON_GPU = ("cuda", "opencv-cuda")
PRESETS = (
    ("x264", "x264-flow"),
    ("x264-fast", "x264-flow-fast"),
    ("jpeg", "jpeg-flow"),
    ("ffv1", "ffv1-flow"),
    ("ffv1", "ffv1-flow16"),
)
NOT_MEASURED = "not measured"
BIG_MACHINE_CORES = 64


Result = dict[str, Any]


def load(results: Path) -> dict[str, Result]:
    """Result files by name, without the suffix."""
    names = [*(f"rates_{engine}" for engine in ENGINES), "simulation"]
    files = {name: results / f"{name}.json" for name in names}
    return {name: json.loads(f.read_text()) for name, f in files.items() if f.exists()}


def render(results: dict[str, Result]) -> dict[str, str]:
    """The tables of the page, by the names in its marks."""
    rates = {engine: results.get(f"rates_{engine}") for engine in ENGINES}
    simulation = results["simulation"]["rows"]
    return {
        "rates": rate_table(rates),
        "sizes": size_table(),
        "times": time_table(rates),
        "storage": storage_table(),
        "nodes": machine.markdown([ray_row(row) for row in simulation["ray"]]),
        "workers": machine.markdown([virtual_row(row) for row in simulation["virtual"]]),
    }


def rate_table(rates: dict[str, Result | None]) -> str:
    return machine.markdown([rate_row(engine, found) for engine, found in rates.items()])


def rate_row(engine: str, found: Result | None) -> dict[str, Any]:
    if found is None:
        return {"engine": f"`{engine}`", "machine": NOT_MEASURED}
    row, where = found["rows"], found["machine"]
    rounds = [number(rate) for rate in sorted(one["flows_per_s_all"] for one in row["rounds"])]
    loads, gpus = row["load averages"], [gpu for gpu in where.get("gpus", "").split("\n") if gpu]
    return {
        "engine": f"`{engine}`",
        "machine": ", ".join([where["cpu"], f"{row['cores']} cores", *gpus]),
        "one worker, flows/s": number(row["flows_per_s_one"]),
        "all workers, flows/s": number(row["flows_per_s_all"]),
        "in the rounds": f"{rounds[0]} to {rounds[-1]}",
        "around the flow, ms of a core a frame": number(row["around_ms_per_frame"]),
        "whole run on real videos, flows/s": number(row["real videos"]["flows_per_s"]),
        "load average": f"{min(loads):g} to {max(loads):g}",
        "commit, date": f"{where['commit']}, {where['date']}",
    }


def size_table() -> str:
    return machine.markdown(
        [
            {
                "data set": one.name,
                "what it is": one.source,
                "hours of video": number(one.hours),
                "frames, at most": number(one.n_frames),
                "stored size": f"{one.size[0]}x{one.size[1]}",
                "shards": number(one.n_frames / Settings().shard_frames),
            }
            for one in DATA_SETS
        ]
    )


def time_table(rates: dict[str, Result | None]) -> str:
    return machine.markdown(
        [time_row(one, engine, rates[engine]) for one in DATA_SETS for engine in ENGINES]
    )


def time_row(one: DataSet, engine: str, found: Result | None) -> dict[str, Any]:
    start = {"data set": one.name, "engine": f"`{engine}`"}
    if found is None:
        return {**start, "machine-hours, as measured": NOT_MEASURED}
    row = found["rows"]
    n_cores, around_s = row["cores"], row["around_ms_per_frame"] / 1e3
    on_gpu = engine in ON_GPU
    hours = machine_s(one, row["flows_per_s_all"], around_s, n_cores, on_gpu) / 3600
    around_core_h = one.n_frames * one.relative_pixels * around_s / 3600
    cells = {
        "machine-hours, as measured": number(hours),
        "cores of it": str(n_cores),
        "core-hours around the flow": number(around_core_h),
    }
    if not on_gpu:
        core_h = hours * n_cores
        cells["core-hours"] = number(core_h)
        cells[f"hours of one machine of {BIG_MACHINE_CORES} cores"] = number(
            core_h / BIG_MACHINE_CORES
        )
        cells["of 16 such"] = number(core_h / BIG_MACHINE_CORES / 16)
    return start | cells


def storage_table() -> str:
    rows = []
    for rgb, flow in PRESETS:
        per_pixel = BYTES_PER_PIXEL[rgb] + BYTES_PER_PIXEL[flow]
        cells = {one.name: number(terabytes(one, per_pixel)) for one in DATA_SETS}
        rows.append({"codecs": f"`{rgb}` + `{flow}`", "bytes a pixel": f"{per_pixel:.3f}", **cells})
    return machine.markdown(rows)


def terabytes(one: DataSet, bytes_per_pixel: float) -> float:
    return one.n_frames * one.size[0] * one.size[1] * bytes_per_pixel / 1e12


def ray_row(row: Result) -> dict[str, Any]:
    return {
        "nodes x workers": f"{row['nodes']} x {row['workers'] // row['nodes']}",
        "at work": percent(row["efficiency"]),
        "of n times one node": percent(row["of n times one node"]),
        "idle between shards": percent(row["idle between shards"]),
        "idle at the end": percent(row["idle at the end"]),
        "next shard after ms, median": number(row["next shard after ms, median"]),
        "p95": number(row["next shard after ms, p95"]),
        "driver, share of a core": percent(row["driver, share of a core"]),
        "driver, CPU ms per shard": number(row["driver, CPU ms per shard"]),
        "driver, MB": number(row["driver, peak MB"]),
        "messages/s": number(row["messages"] / row["wall, s"]),
        "mailbox, CPU ms per message": number(row["mailbox, CPU ms per message"]),
        "load average before": f"{row['load average before']:g}",
    }


def virtual_row(row: Result) -> dict[str, Any]:
    return {
        "shards": f"{row['shards']:,}",
        "lengths": row["lengths"],
        "workers": f"{row['workers']:,}",
        "nodes": "come and go" if row["nodes come and go"] else "stay",
        "tries that died": row["tries that died"],
        "lost": row["lost"],
        "at work": percent(row["at work"]),
        "idle at the end": percent(row["idle at the end"]),
        "driver, CPU ms per shard, without Ray": number(row["driver, CPU ms per shard"]),
        "driver, MB": number(row["driver, peak MB"]),
    }


def percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.1f} %"


def number(value: float) -> str:
    """Three figures."""
    for unit, size in ((" G", 1e9), (" M", 1e6)):
        if value >= size:
            return f"{float(f'{value / size:.3g}'):g}{unit}"
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:g}"


def filled(page: str, tables: dict[str, str]) -> str:
    """The page with these tables between its marks. Raises KeyError for a mark without a table."""
    return MARKED.sub(lambda mark: f"{mark[1]}\n\n{tables[mark[2]]}\n\n{mark[3]}", page)


def write() -> None:
    page = PAGE.read_text("utf-8")
    PAGE.write_text(filled(page, render(load(machine.RESULTS))), "utf-8")


if __name__ == "__main__":
    write()
