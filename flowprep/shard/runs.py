"""runs.jsonl: a line for each run that made shards.

They differ from run to run, so nothing vouches for them, and nothing needs them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from flowprep.shard.schema import typed
from flowprep.storage import Place, RemotePath, oddity, read_if_there

READ_BYTES = 1 << 20
"""So much of the file's end is read, a thousand runs or more."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one run did. Seconds per stage are summed over its workers."""

    started: str  # UTC: 2026-11-25T01:42:57Z
    elapsed_s: float  # from the first worker's start to the last shard
    ended: str  # done; interrupted; stopped, by what the user must mend
    clips: int  # of the shards it made, also those that a retry copied
    failures: int  # of these clips
    flows: int  # computed
    identical: int  # pairs of equal frames, whose flow is 0
    cpu_s: dict[str, float]
    wall_s: dict[str, float]
    workers: int
    machines: dict[str, int]  # processor and GPUs -> workers on such a machine
    engine: str
    executor: str
    versions: dict[str, str]


def append_run(path: Place, run: Run) -> None:
    """Add a line, below one that a crash may have cut short.

    Raises OSError where that does not work, or something else than a file is there.
    """
    line = json.dumps(asdict(run), sort_keys=True, ensure_ascii=False).encode() + b"\n"
    if isinstance(path, RemotePath):
        path.write_bytes((read_if_there(path) or b"") + line)
        return
    if (odd := oddity(path)) not in ("", "is missing"):
        raise OSError(f"{path.name} {odd}")
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, 2)
            line = line if file.read(1) == b"\n" else b"\n" + line
        file.write(line)


def load_runs(path: Place) -> tuple[list[Run], int]:
    """(the last runs, oldest first; lines that are none, as one that a crash has cut short)."""
    if oddity(path):
        return [], 0
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - READ_BYTES))
        lines = file.read(READ_BYTES).split(b"\n")
    found = [_parsed(line) for line in lines[size > READ_BYTES :] if line]
    runs = [run for run in found if run]
    return runs, len(found) - len(runs)


def _parsed(line: bytes) -> Run | None:
    try:
        return typed(Run, json.loads(line))
    except (ValueError, RecursionError):
        return None
