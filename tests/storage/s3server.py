"""A real S3 server process (moto's) behind a proxy that lets things go wrong, and who asks them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LONGEST_S = 600
"""A command that takes longer hangs."""
PATIENCE = HERE / "patience"
"""A folder for PYTHONPATH: with PATIENCE_S set, storage that is down is given up after so long."""


@dataclass(frozen=True)
class S3:
    """A server with the bucket `data`, and what a process needs to reach it through the proxy."""

    port: int
    server_port: int

    @property
    def env(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> Any:
        """Of boto3, past the proxy: another library than the one under test."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.server_port}",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Without the prefix."""
        pages = (
            self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        )
        return [one["Key"][len(prefix) :] for page in pages for one in page.get("Contents", [])]

    def objects(self, bucket: str, prefix: str = "") -> dict[str, bytes]:
        client = self.client()
        return {
            key: client.get_object(Bucket=bucket, Key=prefix + key)["Body"].read()
            for key in self.keys(bucket, prefix)
        }

    def unfinished(self, bucket: str, prefix: str = "") -> list[str]:
        """Names of uploads in parts that were begun and neither completed nor taken back."""
        found = self.client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])
        return [one["Key"] for one in found if one["Key"].startswith(prefix)]

    def fault(self, **faults: Any) -> None:
        """What goes wrong from now on (see proxy.Faults), and count from 0."""
        self._ask("faults", json.dumps(faults).encode())

    def requests(self) -> list[str]:
        """The kind of each, since the last `fault`."""
        return [line.partition(" ")[0] for line in self.log()]

    def happened(self) -> Counter[str]:
        """What went wrong on purpose since then."""
        return +Counter(self._ask("faults"))

    def log(self) -> list[str]:
        found: list[str] = self._ask("log")
        return found

    def _ask(self, what: str, body: bytes | None = None) -> Any:
        url = f"http://127.0.0.1:{self.port}/-/{what}"
        request = urllib.request.Request(url, body, method="PUT" if body else "GET")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        """A command in a process of its own."""
        path = os.pathsep.join(filter(None, [str(PATIENCE), os.environ.get("PYTHONPATH", "")]))
        return subprocess.Popen(
            [sys.executable, "-m", "flowprep", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | self.env | {"PYTHONPATH": path, "PYTHONFAULTHANDLER": "1"} | env,
        )

    def flowprep(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        with self.start(*arguments, **env) as process:
            try:
                out, err = process.communicate(timeout=LONGEST_S)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)  # it tells where it is
                raise TimeoutError(f"it hangs: {process.communicate()[1]}") from None
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@contextmanager
def s3_server(folder: Path) -> Iterator[S3]:
    """Server and proxy, each a process; their logs in `folder`."""
    s3 = S3(_free_port(), _free_port())
    server = [sys.executable, "-m", "moto.server", "-p", str(s3.server_port)]
    proxy = [sys.executable, str(HERE / "proxy.py"), str(s3.port), str(s3.server_port)]
    with _running(server, folder / "server"), _running(proxy, folder / "proxy"):
        _wait_for(s3.server_port)
        _wait_for(s3.port)
        s3.client().create_bucket(Bucket="data")
        yield s3


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            yield
        finally:
            process.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing answers at port {port}")
