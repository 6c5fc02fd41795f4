"""Time and memory of `flowprep report` and `flowprep show` on an index of a million samples.

    python tests/bench/report.py [--rows 1000000] [--rounds 3]

The rows are those of a few real clips (../shared/videos, engine `constant`), again and again under
other keys, labels and numbers; so every chosen sample is read and decoded as any other would be.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import machine
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flowprep.shard.index import FAILURES_SCHEMA, canonical, load_dataset
from flowprep.shard.layout import Layout

CLASSES, FAILED = 700, 5000
COMMANDS = {
    "report": ["report", "{out}", "--out", "{to}/page.html"],
    "report --samples 0": ["report", "{out}", "--out", "{to}/bare.html", "--samples", "0"],
    "show KEY": ["show", "{out}", "{key}", "--out", "{to}/sheet.png"],
    "show, unknown key": ["show", "{out}", "{wrong}"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(Path(folder) / "out")
        extract(layout.out)
        key = enlarge(layout, options.rows)
        places = {"out": layout.out, "to": folder, "key": key, "wrong": f"{key[:-6]}x{key[-5:]}"}
        rows = []
        for name, parts in COMMANDS.items():
            command = [part.format(**places) for part in parts]
            told = [measure(command, 2 if "unknown" in name else 0) for _ in range(options.rounds)]
            row = {"command": name, "rows": options.rows}
            row |= {fact: round(median(one[fact] for one in told), 2) for fact in told[0]}
            rows.append(row)
        for row, page in ((rows[0], "page.html"), (rows[2], "sheet.png")):
            row["written_mb"] = round((Path(folder) / page).stat().st_size / 1e6, 2)
        index_mb = layout.index.stat().st_size / 1e6
    print(machine.markdown(rows))
    print(machine.save("report", rows, index_mb=f"{index_mb:.0f}"))


def extract(out: Path) -> None:
    command = [sys.executable, "-m", "flowprep", "extract", "--src", str(machine.SHARED_VIDEOS)]
    options = ["--out", str(out), "--engine", "constant", "--executor", "local", "--quiet"]
    subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)


def enlarge(layout: Layout, n: int) -> str:
    """Write an index of so many rows in place of the one that is there; returns a key of it."""
    table, rng = pq.read_table(layout.index), np.random.default_rng(0)
    table = table.take(pa.array(np.arange(n) % table.num_rows))
    keys = [f"video_{i:07d}-{hashlib.sha256(b'%d' % i).hexdigest()[:10]}-0000" for i in range(n)]
    label = np.minimum(rng.zipf(1.3, n), CLASSES) - 1
    flow_px = rng.gamma(2, 1.2, n)
    columns = {
        "key": keys,
        "path": [f"class/{key}.mp4" for key in keys],
        "label": [f"class {i:03d}" for i in label],
        "label_index": label,
        "split": rng.choice(["train", "val", "test"], n, p=[0.8, 0.1, 0.1]),
        "flow_mean_px": flow_px,
        "flow_saturated_share": np.where(flow_px > 5, rng.beta(1, 60, n), 0),
        "sha256": [hashlib.sha256(key.encode()).hexdigest() for key in keys],
    }
    for name, values in columns.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, pa.array(values, table.schema.field(name).type))
    pq.write_table(table, layout.index, compression="zstd")
    _write_failures(layout)
    vouch(layout)
    return keys[n // 2]


def _write_failures(layout: Layout) -> None:
    texts = {"shard": "train-000000", "stage": "decode", "reason": "truncated", "message": "cut"}
    columns = {name: [text] * FAILED for name, text in texts.items()}
    columns |= {name: [f"{name}{i}" for i in range(FAILED)] for name in ("key", "path")}
    columns["retriable"] = [False] * FAILED  # type: ignore[list-item]
    pq.write_table(pa.table(columns, schema=FAILURES_SCHEMA), layout.failures)


def vouch(layout: Layout) -> None:
    """Let dataset.json vouch for the tables, as it would for a dataset that large."""
    body = load_dataset(layout.dataset)
    for path in (layout.index, layout.failures):
        body["files"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashlib.sha256(canonical(body)).hexdigest()
    layout.dataset.write_bytes(canonical(body | {"sha256": digest}))


def measure(command: list[str], code: int) -> dict[str, float]:
    """Wall and CPU seconds, and the most memory, of a command of flowprep."""
    began = time.perf_counter()
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, "-m", "flowprep", *command], **quiet)
    ended, peak_kb = 0, 0
    while not ended:
        peak_kb = max(peak_kb, _peak_kb(process.pid))
        time.sleep(0.02)
        ended, status, used = os.wait4(process.pid, os.WNOHANG)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != code:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return {
        "wall_s": time.perf_counter() - began,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mb": peak_kb / 1e3,
    }


def _peak_kb(pid: int) -> int:
    """Of the program that the process runs by now; wait4 would tell that of its parent too."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


if __name__ == "__main__":
    main()
