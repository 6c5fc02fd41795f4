"""The tables and the figure of docs/scale.md, from results/scale.json.

python tests/bench/scale_page.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import machine

RESULT = machine.RESULTS / "scale.json"
DOCS = Path(__file__).resolve().parents[2] / "docs"
STEPS = {
    "plan": "plan",
    "resume": "go on",
    "index": "index",
    "report": "report",
}
STAGES = {
    "list": "list the files and ask for size and time of each",
    "read_manifest": "read the manifest",
    "compare": "compare it with the files",
    "clips": "cut videos into clips",
    "plan": "clips to shards",
    "write_plan": "write the plan",
    "jobs": "totals of each shard",
}
Row = dict[str, Any]


def steps_table(rows: list[Row]) -> str:
    def cell(step: str, videos: int) -> str:
        row = next(row for row in rows if (row["step"], row["videos"]) == (step, videos))
        return f"{row['wall_s']:.1f} s ({row['cpu_s']:.1f}), {row['peak_mb']:,.0f} MB"

    sizes = sorted({row["videos"] for row in rows})
    return machine.markdown(
        [
            {"videos": f"{size:,}"} | {shown: cell(step, size) for step, shown in STEPS.items()}
            for size in sizes
        ]
    )


def growth_table(rows: list[Row]) -> str:
    """Slopes of the last tenfold."""
    last = max(row["to"] for row in rows)
    return machine.markdown(
        [
            {
                f"from {row['from']:,} to {row['to']:,}": STEPS[row["step"]],
                "processor time": f"{row['slope of cpu_s']:.2f}",
                "peak memory": f"{row['slope of peak_mb']:.2f}",
            }
            for row in rows
            if row["to"] == last
        ]
    )


def stages_table(rows: list[Row]) -> str:
    last = max(row["videos"] for row in rows)
    plan, resume = (
        next(row for row in rows if (row["step"], row["videos"]) == (step, last))
        for step in ("plan", "resume")
    )
    return machine.markdown(
        [
            {
                "processor seconds": shown,
                STEPS["plan"]: _seconds(plan, stage),
                STEPS["resume"]: _seconds(resume, stage),
            }
            for stage, shown in STAGES.items()
        ]
    )


def _seconds(row: Row, stage: str) -> str:
    name = f"{stage}_cpu_s"
    return f"{row[name]:.1f}" if name in row else "-"


def probing_table(rows: list[Row]) -> str:
    return machine.markdown(
        [
            {
                "source": row["source"],
                "workers": row["workers"],
                "videos/s": f"{row['videos/wall_s']:.0f}",
                "videos per processor second": f"{row['videos/cpu_s']:.0f}",
                "requests a video": f"{row.get('requests a video', '-')}",
            }
            for row in rows
        ]
    )


def tables(result: dict[str, Any]) -> dict[str, str]:
    """What stands between the marks of the page, by their names."""
    about, rows = result["machine"], result["rows"]
    loads = [
        row["load average before"]
        for table in rows.values()
        for row in table
        if "load average before" in row
    ]
    return {
        "steps": steps_table(rows["steps"]),
        "stages": stages_table(rows["steps"]),
        "growth": growth_table(rows["growth"]),
        "probing": probing_table(rows["probing"]),
        "machine": f"{about['cpu']}, {about['cores']} cores shared with other work (load average "
        f"{min(loads):.1f} to {max(loads):.1f}), commit {about['commit']}, {about['date']}.",
    }


def page_of(text: str, result: dict[str, Any]) -> str:
    """The page with these figures."""
    for name, table in tables(result).items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n\n{table}\n\n{end}{rest.partition(end)[2]}"
    return text


def draw(rows: list[Row], path: Path) -> None:
    """Processor time and peak memory against videos, log-log."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    names = {"cpu_s": "processor seconds", "peak_mb": "peak memory, MB"}
    for axis, (name, shown) in zip(axes, names.items(), strict=True):
        for step, label in STEPS.items():
            of_step = [row for row in rows if row["step"] == step]
            videos = [row["videos"] for row in of_step]
            axis.loglog(videos, [row[name] for row in of_step], "o-", label=label)
        axis.set(xlabel="videos", title=shown)
        axis.grid(True, which="major", alpha=0.3)
    limits = {"cpu_s": 60, "peak_mb": 2000}
    for axis, limit in zip(axes, limits.values(), strict=True):
        axis.axhline(limit, color="gray", linestyle=":")
    axes[0].legend()
    figure.savefig(path, dpi=90)


def main() -> None:
    result = json.loads(RESULT.read_text())
    page = DOCS / "scale.md"
    page.write_text(page_of(page.read_text(), result))
    draw(result["rows"]["steps"], DOCS / "scale.png")


if __name__ == "__main__":
    main()
