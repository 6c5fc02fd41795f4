"""A shard that is so large that it goes up in parts."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from s3server import S3
from watching import Reader

LARGE_BYTES = 110 << 20
UPLOAD = """
import sys
from pathlib import Path
from flowprep.storage import publish, place_of
n_alive = []
publish(Path(sys.argv[1]), place_of(sys.argv[2], "--out"), lambda: n_alive.append(1))
print(len(n_alive))
"""


@pytest.mark.slow
def test_parts_that_fail_and_a_store_that_tells_no_hash(s3: S3, tmp_path: Path) -> None:
    data = random.Random(5).randbytes(LARGE_BYTES)
    (tmp_path / "large").write_bytes(data)

    def upload(name: str) -> None:
        command = [sys.executable, "-c", UPLOAD, str(tmp_path / "large"), f"s3://data/parts/{name}"]
        done = subprocess.run(
            command, env=os.environ | s3.env, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) >= 3
        assert s3.happened()

    with Reader(s3, "data", "parts/", {"one": data, "two": data}) as reader:
        s3.fault(fail_parts=4, drop_upload=0.1, truncate=0.05, opaque_etags=True, seed=5)
        upload("one")
        s3.fault(error=0.2, drop_answer=0.1, seed=6)
        upload("two")
    assert not reader.wrong
    assert s3.objects("data", "parts/") == {"one": data, "two": data}


@pytest.mark.slow
def test_a_byte_that_changes_on_the_way_is_noticed(s3: S3, tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(bytes(1 << 20))
    for name, faults in {"plain": {}, "opaque": {"opaque_etags": True}}.items():
        s3.fault(garble_puts=2, seed=7, **faults)
        command = [
            sys.executable,
            "-c",
            UPLOAD,
            str(tmp_path / "small"),
            f"s3://data/garbled/{name}",
        ]
        subprocess.run(command, env=os.environ | s3.env, check=True, timeout=300)
        assert s3.happened()["garble_puts"] == 2
        assert s3.requests().count("PUT") == 3
    found = s3.objects("data", "garbled/")
    assert found == {"plain": bytes(1 << 20), "opaque": bytes(1 << 20)}
