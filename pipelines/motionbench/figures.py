"""The figures of the page, from results alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowprep.report.color import flow_to_rgb
from pipelines.motionbench.arms import CURVE, PROBED
from pipelines.motionbench.findings import BySeed, Results, interval
from pipelines.motionbench.motions import MOTIONS

SHOWN = ("flow", "rgb", "d3d", "two-stream")
NOISE_FREE = {"Software": None}  # of a PNG, so that the same results give the same bytes


def write_figures(results: Results, folder: Path) -> dict[str, str]:
    """Write those that there are results for. Returns what each file shows."""
    makers: dict[str, tuple[Callable[[Results], Figure | None], str]] = {
        "curves.png": (curves, "accuracy on motions over the size of the training set"),
        "cost.png": (cost, "accuracy on composite classes against multiplications"),
        "confusion.png": (confusions, "motions (rows) and what they were taken for, first seed"),
        "layers.png": (layers, "end-point error of flow decoded from each layer, one 1x1x1 layer"),
        "flow.png": (flows, "TV-L1 and what is decoded from the features at 3A, first seed"),
    }
    written = {}
    for name, (make, says) in makers.items():
        figure = make(results)
        if figure is not None:
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(folder / name, dpi=110, metadata=NOISE_FREE)
            written[name] = says
    return written


def _figure(width: float, height: float, n: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(1, n)))


def curves(results: Results) -> Figure | None:
    """Motion accuracy of CURVE and of two-stream over N, in P."""
    sizes = results.scale["n_train"]
    figure, (axes,) = _figure(6, 4)
    drawn = [
        _errorbars(axes, arm, [(n, results.values("P", arm, "motion", n)) for n in sizes])
        for arm in (*CURVE, "two-stream")
    ]
    axes.axhline(1 / len(MOTIONS), color="gray", linestyle=":", label="chance")
    axes.set(xlabel="training videos", ylabel="motion top-1 (P)", xscale="log", ylim=(0, 1))
    axes.set_xticks(sizes, [f"{n:,}" for n in sizes])
    axes.set_xticks([], minor=True)
    axes.legend()
    return figure if any(drawn) else None


def _errorbars(axes: Axes, label: str, found: list[tuple[float, BySeed]]) -> bool:
    there = [(x, list(values.values())) for x, values in found if values]
    if there:
        heights = [mean(values) for _, values in there]
        bars = [interval(values) if len(values) > 1 else 0 for _, values in there]
        axes.errorbar([x for x, _ in there], heights, bars, label=label, marker="o", capsize=3)
    return bool(there)


def cost(results: Results) -> Figure | None:
    """Composite accuracy against MACs, and against seconds with TV-L1, by engine."""
    found = results.get("cost")
    if found is None:
        return None
    figure, (left, right) = _figure(9, 4, 2)
    for name, costs in found["engines"].items():
        for arm in ("d3d", "flow", "two-stream"):
            values = list(results.values("C", arm, "composite").values())
            if values:
                seconds = costs[arm]["with_tvl1_s"]
                right.plot(1e3 * seconds, mean(values), "o", label=f"{arm}, {name}")
                if name == next(iter(found["engines"])):
                    left.plot(costs[arm]["macs"] / 1e6, mean(values), "o", label=arm)
    left.set(xlabel="million multiplications a clip", ylabel="composite top-1 (C)", ylim=(0, 1))
    right.set(xlabel="ms a clip, TV-L1 included", xscale="log", ylim=(0, 1))
    left.legend()
    right.legend(fontsize=7)
    return figure


def confusions(results: Results) -> Figure | None:
    """Of the motions in P."""
    seed = results.scale["seeds"][0]
    found = [results.get(f"P-{results.n_main}/{arm}-s{seed}") for arm in SHOWN]
    there = [one for one in found if one is not None]
    if not there:
        return None
    figure, panels = _figure(4 * len(there) + 1, 4.6, len(there))
    for axes, one in zip(panels, there, strict=True):
        counts = np.array(one["confusion"], float)
        axes.imshow(counts / counts.sum(1, keepdims=True), vmin=0, vmax=1)
        axes.set_title(one["arm"])
        axes.set_xticks(range(len(MOTIONS)), MOTIONS, rotation=90, fontsize=7)
        axes.set_yticks(range(len(MOTIONS)), MOTIONS if axes is panels[0] else [], fontsize=7)
    return figure


def layers(results: Results) -> Figure | None:
    """EPE by layer of PROBED, beside zero and mean flow."""
    seed = results.scale["seeds"][0]
    found = {arm: results.get(f"probe/{arm}-s{seed}-simple-layers") for arm in PROBED}
    there = {arm: one["layers"] for arm, one in found.items() if one is not None}
    if not there:
        return None
    figure, (axes,) = _figure(6, 4)
    for arm, rows in there.items():
        axes.plot([r["layer"] for r in rows], [r["epe_px"] for r in rows], marker="o", label=arm)
    rows = next(iter(there.values()))
    for what, style in (("zero", ":"), ("mean", "--")):
        heights = [r[f"{what}_flow_epe_px"] for r in rows]
        axes.plot([r["layer"] for r in rows], heights, style, color="gray", label=f"{what} flow")
    axes.set(xlabel="layer", ylabel="end-point error, px", ylim=(0, None))
    axes.legend()
    return figure


def flows(results: Results) -> Figure | None:
    """TV-L1 beside what the features of RGB and of D3D give."""
    seed = results.scale["seeds"][0]
    names = {arm: f"probe/{arm}-s{seed}-pwc" for arm in ("rgb", "d3d")}
    shown = {arm: one["shown"] for arm, name in names.items() if (one := results.get(name))}
    if not shown:
        return None
    target = _px(next(iter(shown.values()))["tvl1"])
    longest_px = max(float(np.hypot(*target).max()), 1e-3)
    pictures = {"TV-L1": target} | {
        f"from {arm}": _px(one["decoded"]) for arm, one in shown.items()
    }
    figure, panels = _figure(3 * (len(pictures) + 1), 3.5, len(pictures) + 1)
    for axes, (name, flow_2HW) in zip(panels, pictures.items(), strict=False):
        axes.imshow(flow_to_rgb(flow_2HW, longest_px), interpolation="nearest")
        axes.set_title(name)
        axes.axis("off")
    _wheel(panels[-1], longest_px)
    return figure


def _px(hundredths: list[Any]) -> np.ndarray:
    return np.array(hundredths, np.float32) / 100


def _wheel(axes: Axes, longest_px: float) -> None:
    at = np.linspace(-1, 1, 181, dtype=np.float32)
    xy_2HW = np.stack(np.meshgrid(at, at))
    wheel = flow_to_rgb(xy_2HW, 1.0)
    wheel[np.hypot(*xy_2HW) > 1] = 255
    axes.imshow(wheel)
    axes.set_title(f"rim: {longest_px:.2f} px")
    axes.axis("off")
