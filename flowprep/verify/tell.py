"""Findings as a list for people or JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from flowprep.records import Finding, printable
from flowprep.storage import Place
from flowprep.verify.check import Watch
from flowprep.verify.recompute import Compared


def tell_findings(findings: list[Finding], out: Place, deep: bool) -> None:
    """Print all findings, or that there is none."""
    list_findings(findings)
    depth = "every byte and every frame" if deep else "every byte"
    count = f"{len(findings)} findings" if findings else f"no findings: {depth} checked"
    Console(highlight=False).print(f"{printable(str(out))}: {count}", markup=False)


def list_findings(findings: list[Finding]) -> None:
    """A line for each."""
    console = Console(highlight=False)
    for finding in map(_printable, findings):
        sample = f" [sample {finding.key}]" if finding.key else ""
        line = f"{finding.code}: {finding.file}{sample}: {finding.message}"
        console.print(line, markup=False, soft_wrap=True)


def _printable(finding: Finding) -> Finding:
    return replace(
        finding,
        file=printable(finding.file),
        message=printable(finding.message),
        shard=printable(finding.shard),
        key=printable(finding.key),
    )


def tell_as_json(findings: list[Finding], out: Place, deep: bool, **more: Any) -> None:
    """The same for machines."""
    shown = [asdict(_printable(finding)) for finding in findings]
    report = {"dataset": printable(str(out)), "deep": deep, "findings": shown, **more}
    sys.stdout.write(json.dumps(report, ensure_ascii=False, indent=1) + "\n")


def tell_recomputed(compared: list[Compared]) -> None:
    """Print how near the samples are to what their source gives now."""
    facts = recomputed_as_dict(compared)
    line = f"{facts['compared']} of {facts['chosen']} samples computed again and compared"
    if facts["compared"]:
        line += (
            f": flow {facts['flow_epe_px']:.3f} px off (worst {facts['worst_flow_epe_px']:.3f}), "
            f"RGB {facts['psnr_db']:.1f} dB (worst {facts['worst_psnr_db']:.1f})"
        )
    Console(highlight=False).print(line, markup=False, soft_wrap=True)


def recomputed_as_dict(compared: list[Compared]) -> dict[str, Any]:
    """Means and worst values over the samples."""
    measured = [one.measured for one in compared if one.measured]
    facts: dict[str, Any] = {"chosen": len(compared), "compared": len(measured)}
    if measured:
        flow, psnr = [m.flow_epe_px for m in measured], [m.psnr_db for m in measured]
        facts |= {"flow_epe_px": fmean(flow), "worst_flow_epe_px": max(flow)}
        facts |= {"psnr_db": fmean(psnr), "worst_psnr_db": min(psnr)}
    return facts


@contextmanager
def watching(what: str, quiet: bool) -> Iterator[Watch]:
    """A bar on standard error, where that is a terminal: of bytes to verify, or of samples."""
    console = Console(stderr=True)
    counted = (MofNCompleteColumn(), TextColumn("samples"))
    amounts = (DownloadColumn(), TransferSpeedColumn()) if what == "verify" else counted
    columns = (TextColumn(what), BarColumn(bar_width=24), *amounts, TimeRemainingColumn())
    off = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=off) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
