"""Findings as a list for people or JSON for machines."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console

from flowprep.records import Finding


def tell_findings(findings: list[Finding], out: Path, deep: bool, as_json: bool) -> None:
    """Print all findings, or that there is none."""
    findings = [_printable(finding) for finding in findings]
    if as_json:
        report = {
            "dataset": printable(str(out)),
            "deep": deep,
            "findings": [asdict(f) for f in findings],
        }
        sys.stdout.write(json.dumps(report, ensure_ascii=False, indent=1) + "\n")
        return
    console = Console(highlight=False)
    for finding in findings:
        sample = f" [sample {finding.key}]" if finding.key else ""
        line = f"{finding.code}: {finding.file}{sample}: {finding.message}"
        console.print(line, markup=False, soft_wrap=True)
    depth = "every byte and every frame" if deep else "every byte"
    count = f"{len(findings)} findings" if findings else f"no findings: {depth} checked"
    console.print(f"{printable(str(out))}: {count}", markup=False)


def _printable(finding: Finding) -> Finding:
    return replace(
        finding,
        file=printable(finding.file),
        message=printable(finding.message),
        shard=printable(finding.shard),
        key=printable(finding.key),
    )


def printable(text: str) -> str:
    """What names in a stranger's tar must not do to a terminal, or to UTF-8, as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
