"""`flowprep extract` into a bucket whose server fails in every way, and what each step asks of it.

    python tests/storage/faults.py --videos ../shared/videos [--only NAME] [--save]

The server is moto's, in a process of its own, behind `proxy.py`. A run on disk tells which bytes
each case must end with, while a reader looks at all that becomes visible. Ends with 1 at the first
thing that is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "bench")]

from cases import Case, Site
from counting import count_all
from machine import SHARED_VIDEOS, markdown, save
from s3server import s3_server
from watching import Reader, dataset_in

OPTIONS = (
    *("--executor", "local", "--workers", "2", "--engine", "cpu"),
    *("--size", "64", "--clip-max", "2", "--shard-frames", "64"),
)
SHAKY = {"slow": 0.1, "slow_s": 2.0, "drop_before": 0.02, "truncate": 0.03}
DROPS = {"drop_upload": 0.05, "drop_answer": 0.03}


def errors(case: Case) -> None:
    case.finish(error=0.05, seed=1)


def shaky(case: Case) -> None:
    case.finish(**SHAKY, **DROPS, seed=2)


def everything(case: Case) -> None:
    case.finish(error=0.05, **SHAKY, **DROPS, seed=3)


def outage(case: Case) -> None:
    """Nothing works for longer than the library tries by itself."""
    case.finish(outage=(70, 82))


def full(case: Case) -> None:
    half = sum(len(data) for name, data in case.site.expected.items()) // 2
    case.stop("QuotaExceeded", "make room", room_bytes=half)
    assert case.marks() > 0
    case.stop("XMinioStorageFull", "make room", room_bytes=0, full=(507, "XMinioStorageFull"))
    case.finish()


def expired(case: Case) -> None:
    case.stop("expired", "give credentials", expired_from=100)
    n_marks = case.marks()
    case.stop("expired", "give credentials", expired_from=100)
    assert case.marks() > n_marks > 0, (case.marks(), n_marks)
    case.finish()


def down(case: Case) -> None:
    """It answers 503 to everything from some point on, and then nothing at all."""
    case.stop("no success for 9 s", "run the same command again", outage=(80, 1 << 60))
    case.stop("no success for 9 s", "run the same command again", silent_from=80)
    case.finish()


def killed(case: Case) -> None:
    """At the plan, three times in the middle, and when the index is written. Uploads in parts that
    nobody will complete are left.
    """
    site, shards = case.site, case.site.n_shards

    def has(name: str) -> Callable[[], bool]:
        return lambda: f"_flowprep/{name}" in site.s3.keys("data", f"{case.name}/")

    large = {"Bucket": "data", "Key": f"{case.name}/large.tar"}
    site.s3.client().create_multipart_upload(**large)
    case.kill(has("plan.parquet"))
    for n in (shards // 4, shards // 2, 3 * shards // 4):
        case.kill(lambda n=n: case.marks() > n, error=0.05, seed=n)
    case.kill(has("index.parquet"))
    case.finish()


def denied(case: Case) -> None:
    case.stop("cannot be written", "Access Denied", "get the rights", deny="PUT DELETE")
    assert not case.site.s3.keys("data", f"{case.name}/")
    case.finish()


CASES = (errors, shaky, everything, outage, full, expired, down, killed, denied)


def tried(site: Site, check: Callable[[Case], None]) -> dict[str, Any]:
    case = Case(site, check.__name__)
    with Reader(site.s3, "data", f"{case.name}/", site.expected) as reader:
        check(case)
    assert not reader.wrong, reader.wrong
    row = {
        "case": case.name,
        "exit codes": case.exits,
        "seconds": case.seconds,
        "requests": case.n_requests,
        "faults": dict(sorted(case.faults.items())),
        "looks of a reader": reader.n_looks,
        "objects it read": reader.n_objects,
    }
    print(json.dumps(row), flush=True)
    return row


def on_disk(site: Site) -> dict[str, bytes]:
    """The same videos into a folder of this machine, and nothing goes wrong."""
    out = site.folder / "disk"
    done = site.s3.flowprep(*site.command(str(out)))
    assert done.returncode == 0, done.stderr
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    return dataset_in({name: path.read_bytes() for name, path in files.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=Path, default=SHARED_VIDEOS)
    parser.add_argument("--only", choices=[*(check.__name__ for check in CASES), "counts"])
    parser.add_argument("--save", action="store_true", help="write tests/bench/results/")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, s3_server(Path(folder)) as s3:
        site = Site(s3, Path(folder), OPTIONS)
        for video in sorted(given.videos.iterdir()):
            s3.client().upload_file(str(video), "data", f"videos/{video.name}")
        site.expected = on_disk(site)
        print(f"{site.n_shards} shards, {sum(map(len, site.expected.values()))} bytes", flush=True)
        rows = [tried(site, one) for one in CASES if given.only in (None, one.__name__)]
        counts = count_all(s3, site.command) if given.only in (None, "counts") else []
    print(markdown(counts))
    if given.save:
        load = " ".join(f"{one:.1f}" for one in os.getloadavg())
        print(save("s3_faults", {"cases": rows, "requests": counts}, load=load))


if __name__ == "__main__":
    main()
