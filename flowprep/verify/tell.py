"""Findings as a list for people or JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from flowprep.records import Finding
from flowprep.verify.check import Watch


def tell_findings(findings: list[Finding], out: Path, deep: bool) -> None:
    """Print all findings, or that there is none."""
    list_findings(findings)
    depth = "every byte and every frame" if deep else "every byte"
    count = f"{len(findings)} findings" if findings else f"no findings: {depth} checked"
    Console(highlight=False).print(f"{out}: {count}", markup=False)


def list_findings(findings: list[Finding]) -> None:
    """A line for each."""
    console = Console(highlight=False)
    for finding in findings:
        sample = f" [sample {finding.key}]" if finding.key else ""
        line = f"{finding.code}: {finding.file}{sample}: {finding.message}"
        console.print(line, markup=False, soft_wrap=True)


def tell_as_json(findings: list[Finding], out: Path, deep: bool, **more: Any) -> None:
    """The same for machines."""
    report = {"dataset": str(out), "deep": deep, "findings": [asdict(f) for f in findings], **more}
    sys.stdout.write(json.dumps(report, ensure_ascii=False, indent=1) + "\n")


@contextmanager
def watching(quiet: bool) -> Iterator[Watch]:
    """A bar of the bytes checked on standard error, where that is a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("verify"),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    off = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=off) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
