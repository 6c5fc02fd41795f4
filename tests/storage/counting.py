"""How often a store is asked, by the log of the proxy before it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from s3server import S3

KINDS = ("LIST", "HEAD", "GET", "PUT", "DELETE")
N_LISTED = 2500
LIST_THEM = """
from flowprep.storage import list_videos, place_of, stamps
root = place_of("s3://data/many", "--src")
paths = list_videos(root)
told = stamps(root)
assert all(told(path)[0] == 1 for path in paths)
print(len(paths))
"""


def count_all(s3: S3, command: Callable[[str], tuple[str, ...]]) -> list[dict[str, Any]]:
    """Rows of a table: requests of each kind, by step."""
    out = "s3://data/counted"
    extracted = _log(s3, *command(out))
    n_shards = sum(key.endswith(".tar") for key in s3.keys("data", "counted/"))
    n_videos = len(s3.keys("data", "videos/"))
    begun = next(
        n for n, one in enumerate(extracted) if one.endswith("/plan.parquet") and one[:3] == "PUT"
    )
    split = {group: [one for one in extracted if _group(one) == group] for group in GROUPS}
    probed = [one for one in extracted[:begun] if _group(one) == "video"]
    rows = [
        _row("a video probed", probed, n_videos),
        _row(
            "a shard made, its videos read",
            split["shard"] + split["video"][len(probed) :],
            n_shards,
        ),
        _row("the rest of that run", split["dataset"], 1),
        *_twice("a run with nothing to make", _log(s3, *command(out)), n_shards),
        *_twice("verify", _log(s3, "verify", out), n_shards),
        _listing(s3),
    ]
    return rows


GROUPS = ("video", "shard", "dataset", "sign of life")


def _group(line: str) -> str:
    path = line.partition(" ")[2].partition("?")[0]
    if path.startswith("/data/videos/"):
        return "video"
    if path.endswith(".tar") or "/shards/" in path or "/swap/" in path:
        return "shard"
    return "sign of life" if path.endswith("/lock") or "heartbeats" in line else "dataset"


def _log(s3: S3, *arguments: str) -> list[str]:
    s3.fault()
    done = s3.flowprep(*arguments)
    assert done.returncode == 0, done.stderr
    return s3.log()


def _row(step: str, lines: list[str], n: int) -> dict[str, Any]:
    counts = Counter(line.partition(" ")[0] for line in lines)
    return {"step": step, **{kind: round(counts[kind] / n, 2) for kind in KINDS}}


def _twice(step: str, log: list[str], n_shards: int) -> list[dict[str, Any]]:
    """What it asks for each shard, and what however many there are."""
    of_shards = [line for line in log if _group(line) == "shard"]
    rest = [line for line in log if _group(line) not in ("shard", "sign of life")]
    return [_row(f"{step}, each shard", of_shards, n_shards), _row(f"{step}, once", rest, 1)]


def _listing(s3: S3) -> dict[str, Any]:
    client = s3.client()
    for number in range(N_LISTED):
        client.put_object(Bucket="data", Key=f"many/{number:05}.mp4", Body=b"0")
    s3.fault()
    ask = [sys.executable, "-c", LIST_THEM]
    env = os.environ | s3.env
    done = subprocess.run(ask, env=env, capture_output=True, text=True, check=True)
    assert int(done.stdout) == N_LISTED
    return _row(f"a listing of {N_LISTED} videos with their sizes and times", s3.log(), 1)
