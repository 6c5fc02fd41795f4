"""The part of the page that tells what the runs took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from flowprep.report import numbers as say
from flowprep.report.charts import share_bar
from flowprep.report.html import Content, Html, Number, element, name_of, table
from flowprep.report.sections import section
from flowprep.shard.runs import Run

SHOWN_RUNS = 50


def throughput(runs: Sequence[Run], damaged: int) -> Html:
    """By run, and by stage over all runs."""
    notes: list[Content] = []
    if damaged:
        notes.append(
            element(
                "p",
                f"{say.counted(damaged, 'line')} of runs.jsonl not read: a crash cuts lines short.",
                class_="note",
            )
        )
    if not runs:
        notes.append(element("p", "No run is recorded in runs.jsonl.", class_="note"))
        return section("throughput", "Throughput", *notes)
    return section("throughput", "Throughput", *notes, _run_table(runs), _stage_table(runs))


def _run_table(runs: Sequence[Run]) -> Html:
    head = [
        *("started, UTC", "ended", "took", "clips", "flows", "flows/s", "workers", "on"),
        *("engine", "executor"),
    ]
    caption = (
        say.counted(len(runs), "run") if len(runs) <= SHOWN_RUNS else f"The last {SHOWN_RUNS} runs"
    )
    return table(head, [_run_row(run) for run in reversed(runs[-SHOWN_RUNS:])], caption)


def _run_row(run: Run) -> list[Content]:
    rate = run.flows / run.elapsed_s if run.elapsed_s > 0 else 0.0
    machines = "; ".join(f"{n} on {name}" for name, n in run.machines.items())
    return [
        name_of(run.started),
        name_of(run.ended),
        Number(say.duration(run.elapsed_s)),
        Number(say.count(run.clips)),
        Number(say.count(run.flows)),
        Number(say.digits(rate)),
        Number(say.count(run.workers)),
        name_of(machines or "no worker"),
        name_of(run.engine),
        name_of(run.executor),
    ]


def _stage_table(runs: Sequence[Run]) -> Html:
    """Stages of a worker overlap, and wait for one another: CPU seconds tell what costs."""
    cpu_s, wall_s = Counter[str](), Counter[str]()
    for run in runs:
        cpu_s.update(run.cpu_s)
        wall_s.update(run.wall_s)
    total_s, flows = max(1e-9, sum(cpu_s.values())), sum(run.flows for run in runs)
    rows: list[list[Content]] = [
        [
            name_of(stage),
            Number(say.duration(seconds)),
            Number(say.percent(seconds / total_s)),
            share_bar(seconds / total_s),
            Number(f"{say.digits(1000 * seconds / flows)} ms" if flows else ""),
            Number(say.duration(wall_s[stage])),
        ]
        for stage, seconds in cpu_s.most_common()
    ]
    head = ["stage", "CPU", "share", "", "CPU a flow", "wall, summed over workers"]
    return table(head, rows, "By stage, all runs together; stages of a worker overlap")
