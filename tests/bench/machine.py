"""What every result file says about where it was measured."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
SHARED_VIDEOS = Path(__file__).resolve().parents[3] / "shared" / "videos"
LIBRARIES = (
    *("av", "cupy-cuda12x", "cupy-cuda13x", "llvmlite", "numpy"),
    *("opencv-contrib-python-headless", "ray", "webdataset"),
)


def describe() -> dict[str, Any]:
    """Processor, cores, versions and commit."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in LIBRARIES if _version(name)},
        "commit": _commit(),
        "date": date.today().isoformat(),
    }


def _version(name: str) -> str:
    """ "" where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def gpu() -> dict[str, str]:
    """The driver and name of each NVIDIA GPU."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return {
        "gpus": subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    }


def _commit() -> str:
    """Of the code that was measured; results written before are no change to it."""
    if named := os.environ.get("FLOWPREP_COMMIT"):
        return named
    changed = _git("status", "--porcelain", "--", ":/", ":(exclude,top)tests/bench/results")
    return _git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def save(theme: str, rows: Any, **facts: str) -> Path:
    """Write results/<theme>.json: the machine with more facts on it, and the rows."""
    path = RESULTS / f"{theme}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"machine": describe() | facts, "rows": rows}, indent=1) + "\n")
    return path


def markdown(rows: list[dict[str, Any]]) -> str:
    """A table of dicts; a cell is empty where one lacks the key."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---"] * len(names), *([str(row.get(n, "")) for n in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
