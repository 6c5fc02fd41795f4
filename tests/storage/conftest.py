"""A real S3 server process (moto's), and flowprep run against it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("s3fs", reason="s3fs is not installed")
pytest.importorskip("moto", reason="moto is not installed")


@dataclass(frozen=True)
class S3:
    """A server, what a process needs to reach it, and its log."""

    port: int
    log: Path

    @property
    def env(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def client(self) -> Any:
        """Of boto3: another library than the one under test."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.env["AWS_ENDPOINT_URL"],
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )

    def objects(self, bucket: str, prefix: str = "") -> dict[str, bytes]:
        client = self.client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
        return {
            k[len(prefix) :]: client.get_object(Bucket=bucket, Key=k)["Body"].read() for k in keys
        }

    def requests(self) -> list[str]:
        """The method of each request so far."""
        return re.findall(r'"(?:\x1b\[[0-9;]*m)?([A-Z]+) /', self.log.read_text(errors="replace"))

    def flowprep(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a process of its own."""
        command = [sys.executable, "-m", "flowprep", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, env=os.environ | self.env | env
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing answers at port {port}")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A server with the empty bucket `data`."""
    server = S3(free_port(), tmp_path_factory.mktemp("s3") / "log")
    command = [sys.executable, "-m", "moto.server", "-p", str(server.port)]
    with server.log.open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        wait_for(server.port)
        server.client().create_bucket(Bucket="data")
        yield server
        process.kill()
