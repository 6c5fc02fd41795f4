"""The page of an experiment, made from its results alone.

python -m pipelines.motionbench.page motionbench/results --out motionbench/page
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any

import tyro

from pipelines.motionbench.arms import ARM, ARMS, PAIRS, PROBED, second_loss
from pipelines.motionbench.figures import write_figures
from pipelines.motionbench.findings import BySeed, Results, percent, verdicts
from pipelines.motionbench.motions import MOTIONS, PALETTES
from pipelines.motionbench.ways import WAY_NAMES, gains, what_is_other
from train.checkpoint import write_whole
from train.common import run_main, tell
from train.config import parse

NAMES = [arm.name for arm in ARMS] + list(PAIRS)
VERDICT = {True: "holds", False: "FAILS", None: "not measured"}
LABELS = {
    "tiny": "**Scale `tiny` only proves that the parts fit: its networks learn next to nothing.** ",
    "small": "**Small: the scale for two CPU cores.** ",
}
Rows = list[list[str]]


@dataclass(frozen=True, kw_only=True)
class PageConfig:
    """Make the page of an experiment again, from its results."""

    results: Annotated[str, tyro.conf.Positional] = "motionbench/results"  # folder of the JSON
    out: str = "motionbench/page"  # folder of page.md and its figures


def write_page(folder: Path, out: Path) -> Path:
    """Write page.md and its figures; the same results give the same bytes."""
    results = Results(folder)
    figures = write_figures(results, out)
    parts = [part for section in _sections(results, figures) for part in section]
    write_whole(out / "page.md", ("\n\n".join(parts) + "\n").encode())
    return out / "page.md"


def _sections(results: Results, figures: dict[str, str]) -> Iterator[list[str]]:
    yield _head(results)
    yield ["## What was to be shown", _verdicts(results)]
    yield ["## Composite classes (C)", _accuracy(results, "C")]
    yield ["## Motions alone (P)", _accuracy(results, "P")]
    yield ["## Ways to two streams", _ways(results)]
    yield ["## Less training data", _sizes(results)]
    if results.scale["biases"]:
        yield ["## Static bias", _biases(results)]
    yield ["## Flow in the features", _probes(results)]
    yield ["## Cost", *_costs(results)]
    yield ["## What was tried", _tries(results)]
    yield ["## Flow of the shards", _gate(results)]
    yield ["## Figures", *(f"![{says}]({name})\n\n{says}" for name, says in figures.items())]


def _head(results: Results) -> list[str]:
    scale = results.scale
    trained = [r for r in results.trained if r["arm"] in ARM]
    where = sorted({_where(r) for r in results.all.values()})
    label = LABELS.get(scale["name"], "")
    return [
        "# Does the student see motion?",
        f"{label}{scale['n_train'][-1]:,} training videos of {scale['side']} px and "
        f"{scale['n_frames']} frames, {scale['n_test']:,} test videos, {len(scale['seeds'])} "
        f"seeds, S3D-G of width {scale['net']['width']:g} on {scale['crop']} px. "
        f"{len(trained)} networks that count are trained so far, in "
        f"{sum(r['seconds'] for r in trained) / 60:,.0f} minutes.",
        "Mean and standard deviation over seeds; every network that was trained is here.",
        "\n".join(f"- {one}" for one in where),
    ]


def _where(result: dict[str, Any]) -> str:
    machine, versions = result["machine"], result["versions"]
    device = machine["gpu"] or f"{machine['cores']} cores of {machine['cpu']}"
    told = ", ".join(f"{name} {number}" for name, number in sorted(versions.items()))
    return f"{device}; commit {result['commit'] or 'unknown'}; {told}"


def _verdicts(results: Results) -> str:
    rows = [[VERDICT[v.holds], v.claim, v.found, v.needed] for v in verdicts(results)]
    return table(["", "claim", "found", "needed"], rows)


def _accuracy(results: Results, space: str) -> str:
    metrics = ["motion", "direction", "direction, shuffled"]
    metrics = (["composite", "appearance"] if space == "C" else []) + metrics
    rows = []
    for name in NAMES:
        cells = [_cell(results.values(space, name, metric)) for metric in metrics]
        if any(cells):
            what = second_loss(ARM[name]) if name in ARM else " + ".join(PAIRS[name])
            rows.append([name, what, *cells])
    chance = ["1/48", "1/4", "1/12", "1/2", "1/2"][-len(metrics) :]
    rows.append(["chance", "", *chance])
    return table(["network", "learns beside its labels", *metrics], rows)


def _ways(results: Results) -> str:
    """Composite classes, paired by seed."""
    head = ["", "what is other", "composite", "motion", "over d3d", "over two-stream", "seeds"]
    rows = []
    for name in WAY_NAMES:
        values = results.values("C", name, "composite")
        if values:
            cells = _cell(values), _cell(results.values("C", name, "motion"))
            rows.append(
                [name, what_is_other(name), *cells, *gains(results, name), f"{len(values)}"]
            )
    return table(head, rows)


def _cell(values: BySeed) -> str:
    found = list(values.values())
    if not found:
        return ""
    return percent(mean(found)) + (f" ± {100 * stdev(found):.1f}" if len(found) > 1 else "")


def _sizes(results: Results) -> str:
    sizes = results.scale["n_train"]
    rows = []
    for space, metric in (("P", "motion"), ("C", "composite")):
        for name in NAMES:
            found = [results.values(space, name, metric, n) for n in sizes]
            if sum(map(bool, found)) > 1:
                rows.append([f"{name}, {metric} ({space})", *map(_cell, found)])
    return table(["network", *(f"{n:,} videos" for n in sizes)], rows)


def _biases(results: Results) -> str:
    biases = [0.0, *results.scale["biases"]]
    rows = []
    for name in NAMES:
        found = [results.values("P", name, "motion", bias=bias) for bias in biases]
        if sum(map(bool, found)) > 1:
            rows.append([name, *map(_cell, found)])
    return "Motion (P), tested without bias.\n\n" + table(
        ["network", *(f"bias {bias:g}" for bias in biases)], rows
    )


def _probes(results: Results) -> str:
    rows = []
    for arm in PROBED:
        for decoder, tuned in (("simple", 0), ("spatial", 0), ("pwc", 0), ("pwc", 1)):
            found = results.probes(arm, decoder, tuned=bool(tuned)).values()
            if found:
                names = ("epe_px", "zero_flow_epe_px", "mean_flow_epe_px")
                cells = [f"{mean(r[name] for r in found):.3f}" for name in names]
                rows.append([arm, decoder + " fine-tuned" * tuned, *cells, str(len(found))])
    return (
        "End-point error in px of flow decoded at 3A, beside predictions that see nothing.\n\n"
        + (table(["features of", "decoder", "error", "zero flow", "mean flow", "seeds"], rows))
    )


def _costs(results: Results) -> list[str]:
    cost = results.get("cost")
    if cost is None:
        return ["Not measured."]
    rows = []
    for engine, costs in cost["engines"].items():
        for name in ("d3d", "flow", "two-stream"):
            one = costs[name]
            times = (f"{1e3 * one[s]:.1f}" for s in ("networks_s", "with_tvl1_s"))
            size = f"{one['parameters'] / 1e6:.3f}", f"{one['macs'] / 1e6:.1f}"
            rows.append([engine, name, *size, *times])
        both, one = costs["two-stream"], costs["d3d"]
        ratios = (one[n] / both[n] for n in ("parameters", "macs", "networks_s", "with_tvl1_s"))
        rows.append([engine, "d3d / two-stream", *(f"{ratio:.3f}" for ratio in ratios)])
    macs = cost["macs_article"]
    return [
        "The article says one network of RGB costs about a third. Of multiplications alone it is "
        f"{macs['d3d'] / macs['two-stream']:.3f} (S3D-G, 64 x 224 x 224); with TV-L1 counted it "
        "depends on the engine. Here, for one clip:",
        table(
            ["TV-L1 by", "", "M parameters", "M multiplications", "networks ms", "with TV-L1 ms"],
            rows,
        ),
        "\n".join(f"- {costs['how']}" for costs in cost["engines"].values()),
    ]


def _tries(results: Results) -> str:
    """Each value with its top-1 on the validation split."""
    rows: dict[str, list[str]] = {}
    for name, found in results.all.items():
        if name.startswith("search/"):
            key = f"{found['arm']} ({found['space']})"
            value = found["learning_rate"] if found["weight"] is None else found["weight"]
            top1 = percent(found["val"]["top1"])
            rows.setdefault(key, []).append(f"{value:g}: {top1}")
    return table(
        ["network", "learning rate, or weight of the second loss: top-1 in validation"],
        [[key, "; ".join(tries)] for key, tries in rows.items()],
    )


def _gate(results: Results) -> str:
    gate = results.get("gate")
    if gate is None:
        return "Not measured."
    medians = ", ".join(f"{name} {px:.3f}" for name, px in gate["median_epe_px"].items())
    return (
        f"Median end-point error of TV-L1 in the shards against the known flow, px: {medians} "
        f"(allowed: {gate['limit_px']}); {gate['clips']:,} clips, {len(MOTIONS)} motions, "
        f"{len(PALETTES)} palettes, engine {gate['engine']}."
    )


def table(head: list[str], rows: Rows) -> str:
    """Of Markdown."""
    if not rows:
        return "Not measured."
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    config = parse(PageConfig, "python -m pipelines.motionbench.page")
    tell(str(write_page(Path(config.results), Path(config.out))))


if __name__ == "__main__":
    run_main(main)
