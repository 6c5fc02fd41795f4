"""How many videos a core probes in a second: local files, and objects of an S3 server (moto's).

python tests/bench/scale_probing.py WORKERS SOURCE    # one round, for scale.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine

sys.path.append(str(Path(__file__).parents[1] / "storage"))
from s3server import s3_server

VIDEOS = ("arm_wrestling.mp4", "mmaction2_test.avi", "v_GGSY1Qvo990.mp4", "v_ZNVhz7ctTq0.mp4")
"""Web videos of 7 to 18 s, of some hundred frames each."""
N_LOCAL, N_OBJECTS = 2000, 400
Row = dict[str, Any]


def rows(rounds: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        _link(source, N_LOCAL)
        found = [_best("local files", n, str(source), {}, rounds) for n in (1, 2)]
        with s3_server(Path(folder)) as server:
            _upload(server.client(), N_OBJECTS)
            for n_workers in (1, 2):
                server.fault()  # counts from 0
                row = _best("S3", n_workers, "s3://data/src", server.env, rounds)
                row["requests a video"] = len(server.requests()) / (rounds * N_OBJECTS)
                found.append(row)
    return [{k: round(v, 2) if isinstance(v, float) else v for k, v in r.items()} for r in found]


def _link(folder: Path, n: int) -> None:
    folder.mkdir()
    for name in VIDEOS:
        (folder / name).write_bytes((machine.SHARED_VIDEOS / name).read_bytes())
    for i in range(len(VIDEOS), n):
        name = VIDEOS[i % len(VIDEOS)]
        (folder / f"{i:05d}-{name}").hardlink_to(folder / name)


def _upload(client: Any, n: int) -> None:
    for i in range(n):
        name = VIDEOS[i % len(VIDEOS)]
        client.upload_file(str(machine.SHARED_VIDEOS / name), "data", f"src/{i:05d}-{name}")


def _best(kind: str, n_workers: int, source: str, env: dict[str, str], rounds: int) -> Row:
    command = [sys.executable, __file__, str(n_workers), source]
    told: list[Row] = []
    for _ in range(rounds):
        load = os.getloadavg()[0]
        done = subprocess.run(command, stdout=subprocess.PIPE, env=os.environ | env, check=True)
        told.append(json.loads(done.stdout) | {"load average before": load})
    least = min(told, key=lambda row: float(row["cpu_s"]))
    least["wall_s"] = min(row["wall_s"] for row in told)
    rates = {f"videos/{name}": least["videos"] / least[name] for name in ("wall_s", "cpu_s")}
    return {"source": kind, "workers": n_workers, **least, **rates}


def main() -> None:
    from flowprep.run.probing import ProbeLimits, probe_all
    from flowprep.sources import read_source

    source = read_source(sys.argv[2])
    began_s, began_cpu_s = time.perf_counter(), _cpu_s()
    limits = ProbeLimits(n_workers=int(sys.argv[1]))
    probed = list(probe_all(source.root, limits, list(source.videos)))
    assert all(video.media for video in probed), [v.message for v in probed if not v.media]
    facts = {"videos": len(probed), "frames": sum(v.media.n_frames for v in probed if v.media)}
    facts |= {"wall_s": time.perf_counter() - began_s, "cpu_s": _cpu_s() - began_cpu_s}  # type: ignore[dict-item]
    print(json.dumps(facts))


def _cpu_s() -> float:
    """Of this process and of those that it has ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    main()
