"""The plan of a dry run and the summary of a run, as tables or as JSON."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from flowprep.errors import ADVICE
from flowprep.records import Clip, Failure, printable
from flowprep.run.estimate import estimate
from flowprep.run.extract import Summary, dataset_layout
from flowprep.run.jobs import refused
from flowprep.run.prepare import Request, Work, prepare
from flowprep.run.progress import Display, duration
from flowprep.run.rebuild import Repaired
from flowprep.run.workplace import open_workplace

SHOWN = 20
"""So many failures are listed; the rest is counted."""


def tell_plan(request: Request, display: Display, as_json: bool) -> None:
    """Print what `extract` would do. Writes nothing."""
    with open_workplace(request.resources, display) as workplace:
        work = prepare(request, dataset_layout(request.out), display, workplace, dry=True)
        cost = estimate(work, workplace)
        workers = request.resources.workers or workplace.cores
    n_frames, cannot = work.plan.n_frames, refused(work)
    facts = {
        "videos": len(work.videos),
        "clips": len(work.plan),
        "shards": len(work.plan.shards),
        "shards_to_make": len(work.todo),
        "frames": int(n_frames.sum()),
        "flows": int((n_frames[n_frames > 0] - 1).sum()),
        "estimated_bytes": cost.n_bytes,
        "estimated_s": round(cost.flow_s / workers, 1),
        "pairs_tried": cost.n_pairs_tried,
        "engine": work.settings.engine,
        "refused": len(cannot),
    }
    if as_json:
        _json("plan", **facts, refusals=[_refusal(clip) for clip in cannot])
        return
    _table("plan", _plan_rows(facts, workers, work))
    _list_failures([(c.path, c.reason, c.message) for c in cannot], "cannot be made")


def _plan_rows(facts: dict[str, Any], workers: int, work: Work) -> list[tuple[str, str]]:
    splits = Counter(work.plan.table["split"].to_pylist())
    shown = ["videos", "clips", "shards", "shards_to_make", "frames", "flows", "engine", "refused"]
    rows = [(name.replace("_", " "), str(facts[name])) for name in shown]
    rows.insert(2, ("splits", ", ".join(f"{name} {n}" for name, n in sorted(splits.items()))))
    rows.append(("classes", str(len(work.classes)) if work.classes else "no labels"))
    rows.append(("size, about", size(facts["estimated_bytes"])))
    tried = f"{workers} workers; {facts['pairs_tried']} pairs tried"
    rows.append(("flow time, about", f"{duration(facts['estimated_s'])} ({tried})"))
    return rows


def _refusal(clip: Clip) -> dict[str, str]:
    return {"path": clip.path, "reason": clip.reason, "message": clip.message}


def tell_summary(
    summary: Summary, out: str, display: Display, as_json: bool, debug: bool = False
) -> None:
    """Print how a run ended; with `debug` all that is known of lost shards."""
    facts: dict[str, Any] = {
        "planned": summary.planned,
        "samples": summary.samples,
        "failures": len(summary.failures),
        "frames": summary.frames,
        "flows": summary.flows,
        "bytes": summary.tar_bytes,
    }
    run = display.tally.as_dict()
    if as_json:
        lost = [{"shard": shard, "why": why} for shard, why in summary.lost.items()]
        failures = [f.__dict__ | {"advice": ADVICE[f.reason]} for f in summary.failures]
        _json("summary", **facts, failed=failures, lost=lost, run=run)
        return
    rows = [(name, size(n) if name == "bytes" else str(n)) for name, n in facts.items()]
    if run.get("clips"):
        rows.append(("this run", f"{run['clips']} clips, {run['flows_per_s']:.1f} flows/s"))
        rows.append(("CPU seconds", ", ".join(f"{k} {v:.1f}" for k, v in run["cpu_s"].items())))
    _table(f"{out}", rows)
    _list_failures([_of(failure) for failure in summary.failures], "failed")
    if summary.failures:
        Console(highlight=False).print("then run the same command with --retry-failed")
    tell_lost(summary.lost, debug)


def tell_repair(repaired: Repaired, debug: bool = False) -> None:
    """Print what a repair did; with `debug` all that is known of lost shards."""
    console = Console(highlight=False)

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    for shard, (n_kept, n_made) in sorted(repaired.rebuilt.items()):
        say(f"{shard}: made again, {n_kept} samples copied and {n_made} computed")
    for name in repaired.written:
        say(f"{name}: written again")
    if repaired.other_bytes:
        say(
            f"{len(repaired.other_bytes)} samples have other bytes than before (other versions, "
            f"or another source): {', '.join(repaired.other_bytes[:SHOWN])}"
        )
    if strangers := [f.file for f in repaired.found if f.code == "unexpected-file"]:
        shown = ", ".join(strangers[:SHOWN])
        say(f"{len(strangers)} files are no part of this dataset and were left: {shown}")
    for shard, why in sorted(repaired.left.items()):
        say(f"{shard}: left as it is: {why}")
    _list_failures([_of(failure) for failure in repaired.failures], "could not be made again")
    tell_lost(repaired.lost, debug)


def tell_lost(lost: dict[str, str], debug: bool) -> None:
    """Shards that could not be made, on standard error."""
    for shard, why in lost.items():
        told = why if debug else why.splitlines()[-1]  # a traceback ends with what happened
        console = Console(stderr=True, highlight=False)
        console.print(f"{shard} could not be made: {told}", markup=False, soft_wrap=True)


def repair_as_dict(repaired: Repaired) -> dict[str, Any]:
    """For JSON."""
    return {
        "found": [asdict(finding) for finding in repaired.found],
        "rebuilt": {s: {"copied": k, "made": m} for s, (k, m) in repaired.rebuilt.items()},
        "written": repaired.written,
        "other_bytes": repaired.other_bytes,
        "left": repaired.left,
        "lost": repaired.lost,
        "new_failures": [asdict(failure) for failure in repaired.failures],
    }


def _of(failure: Failure) -> tuple[str, str, str]:
    return failure.path, failure.reason, failure.message


def _list_failures(failures: list[tuple[str, str, str]], what: str) -> None:
    if not failures:
        return
    console = Console(highlight=False)
    reasons = ", ".join(f"{r} {n}" for r, n in Counter(f[1] for f in failures).most_common())
    console.print(f"{len(failures)} {what}: {reasons}", markup=False)
    for path, reason, message in failures[:SHOWN]:
        line = printable(f"  {path}: {reason}: {message}")
        console.print(line, markup=False, soft_wrap=True)
    if len(failures) > SHOWN:
        console.print(f"  ... and {len(failures) - SHOWN} more, in failures.parquet", markup=False)
    for reason in dict.fromkeys(failure[1] for failure in failures):
        console.print(f"  {reason}: {ADVICE[reason]}", markup=False, soft_wrap=True)


def _table(title: str, rows: list[tuple[str, str]]) -> None:
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in rows:
        table.add_row(name, value)
    Console(highlight=False).print(table)


def _json(event: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")


def size(n_bytes: int) -> str:
    """1.2 GB"""
    amount, units = float(n_bytes), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 1000 and len(units) > 1:
        amount /= 1000
        units.pop(0)
    return f"{amount:.1f} {units[0]}" if units[0] != "B" else f"{n_bytes} B"
