"""What was measured, as tables or as JSON."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flowprep.bench.clip import DESCRIPTION
from flowprep.bench.outlook import MACHINES, assumptions
from flowprep.bench.run import EngineFound, Found
from flowprep.run.progress import duration
from flowprep.run.tell import size

CUDA_RULES = ("cuda", "opencv-cuda", "cpu", "reference")
"""Engines that iterate as OpenCV CUDA does, so that its number of iterations is theirs."""


def as_dict(found: Found) -> dict[str, Any]:
    """For JSON."""
    dataset = found.order.dataset
    return {
        "processor": processor(),
        "cores": found.n_cores,
        "clip": DESCRIPTION,
        "pixel_iterations_per_pair": found.pixel_iterations,
        "engines": [_engine_as_dict(found, one) for one in found.engines],
        "around_ms_per_frame": 1e3 * found.around.frame_s,
        "around_stages_ms": {name: 1e3 * s for name, s in found.around.stages_s.items()},
        "hours": dataset.hours,
        "fps": dataset.fps,
        "size": dataset.short_side,
        "frames": dataset.n_frames,
        "bytes": dataset.n_bytes,
        "assumptions": assumptions(dataset),
    }


def _engine_as_dict(found: Found, one: EngineFound) -> dict[str, Any]:
    per_pair = iterations_of(found, one)
    rates, alone, together = one.rates, one.rates.alone.flows_per_s, one.rates.flows_per_s_together
    return {
        "engine": one.name,
        "build": one.build,
        "workers": len(rates.together),
        "flows_per_s_one": alone,
        "flows_per_s_all": together,
        "pairs_one": rates.alone.n_pairs,
        "pairs_all": sum(tried.n_pairs for tried in rates.together),
        "pixel_iterations_per_s_one": per_pair * alone if per_pair else None,
        "pixel_iterations_per_s_all": per_pair * together if per_pair else None,
        "seconds": {str(n): seconds for n, seconds in one.seconds.items()},
    }


def iterations_of(found: Found, one: EngineFound) -> float | None:
    """Pixel-iterations that this engine takes for a pair, where they are known."""
    return found.pixel_iterations if one.name in CUDA_RULES else None


def tell(found: Found) -> None:
    """Print the tables and what they rest on."""
    console = Console(highlight=False)
    dataset = found.order.dataset
    console.print(f"{processor()}, {found.n_cores} cores", markup=False)
    console.print(f"clip: {DESCRIPTION}", markup=False, soft_wrap=True)
    if found.pixel_iterations:
        console.print(
            f"      {found.pixel_iterations / 1e6:.1f} M px-iterations (pixels x iterations) a pair"
        )
    console.print(_rates_table(found))
    stages = ", ".join(f"{name} {1e3 * s:.2f}" for name, s in found.around.stages_s.items())
    console.print(
        f"around the flow: {1e3 * found.around.frame_s:.2f} ms of one core a frame ({stages})",
        soft_wrap=True,
    )
    console.print(
        f"{dataset.hours:g} hours at {dataset.fps:g} frames/s, short side {dataset.short_side} px: "
        f"about {size(int(dataset.n_bytes))}, and",
        soft_wrap=True,
    )
    console.print(_outlook_table(found))
    for line in assumptions(dataset):
        console.print(f"- {line}", markup=False, soft_wrap=True)


def _rates_table(found: Found) -> Table:
    heads = ("one worker, flows/s", "all, flows/s", "M px-iterations/s", "pairs")
    table = Table("engine", *heads)
    for one in found.engines:
        per_pair, alone = iterations_of(found, one), one.rates.alone
        n_workers, n_pairs = len(one.rates.together), sum(t.n_pairs for t in one.rates.together)
        millions = f"{per_pair * alone.flows_per_s / 1e6:,.0f}" if per_pair else "?"
        table.add_row(
            one.name,
            f"{alone.flows_per_s:,.2f}",
            f"{one.rates.flows_per_s_together:,.2f} ({n_workers})",
            millions,
            f"{alone.n_pairs} + {n_pairs}",
        )
    return table


def _outlook_table(found: Found) -> Table:
    heads = [f"{n} machine{'s' if n > 1 else ''}" for n in MACHINES]
    table = Table("engine", *heads)
    for one in found.engines:
        table.add_row(one.name, *(duration(one.seconds[n]) for n in MACHINES))
    return table


def processor() -> str:
    """Its name as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
