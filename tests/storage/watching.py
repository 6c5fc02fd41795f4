"""A reader who looks at a dataset again and again while it is made: all that it sees is whole."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from typing import Any

import pyarrow.parquet as pq
from s3server import S3

LATER_S = 0.2
LIVING = ("_flowprep/runs.jsonl", "_flowprep/lock")
"""What is no part of the dataset, and differs from run to run."""
WHEN_DONE = "_flowprep/dataset.json"


class Reader(threading.Thread):
    """Reads past the proxy, by boto3. `expected` is the finished dataset, name -> bytes.

    `wrong` gets what a reader must never see.
    """

    def __init__(self, s3: S3, bucket: str, prefix: str, expected: dict[str, bytes]) -> None:
        super().__init__(daemon=True)
        self._s3, self._bucket, self._prefix, self._expected = s3, bucket, prefix, expected
        self._client, self._stop_it = s3.client(), threading.Event()
        self._seen: set[tuple[str, str]] = set()
        self.n_looks = self.n_objects = 0
        self.wrong: list[str] = []

    def __enter__(self) -> Reader:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_it.set()
        self.join()

    def run(self) -> None:
        try:
            while not self._stop_it.wait(LATER_S):
                self._look()
            self._look()
        except Exception as error:  # noqa: BLE001 - or the main thread would not know
            self.wrong.append(f"{type(error).__name__}: {error}")

    def _look(self) -> None:
        pages = self._client.get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=self._bucket, Prefix=self._prefix)
        listed = {one["Key"]: one["ETag"] for page in found for one in page.get("Contents", [])}
        names = {key[len(self._prefix) :] for key in listed}
        for key, etag in listed.items():
            if (key, etag) not in self._seen:
                self._seen.add((key, etag))
                self._read(key, names)
        self.n_looks += 1

    def _read(self, key: str, names: set[str]) -> None:
        name = key[len(self._prefix) :]
        try:
            data = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        except self._client.exceptions.NoSuchKey:
            if name in self._expected and name != WHEN_DONE:
                self.wrong.append(f"{name} was taken away")
            return
        self.n_objects += 1
        if problem := self._problem(name, data, names):
            self.wrong.append(f"{name}, {len(data)} bytes: {problem}")

    def _problem(self, name: str, data: bytes, names: set[str]) -> str:
        if name.endswith(".tar") or name.startswith("_flowprep/shards/"):
            if data != self._expected.get(name):
                return "is not what the run on disk has made"
            return self._problem_of_mark(data, names) if name.endswith(".json") else ""
        if name.endswith(".parquet"):
            pq.read_table(io.BytesIO(data))
        elif name.endswith((".json", "lock")):
            json.loads(data)
        elif name not in LIVING and data != self._expected.get(name):
            return "is not what the run on disk has made"
        return ""

    def _problem_of_mark(self, data: bytes, names: set[str]) -> str:
        mark: dict[str, Any] = json.loads(data)
        if not mark["samples"]:
            return ""
        tar = f"{mark['shard']}.tar"
        if tar not in names:
            return "is marked, and its tar is not there"
        body = self._client.get_object(Bucket=self._bucket, Key=self._prefix + tar)["Body"].read()
        is_whole = hashlib.sha256(body).hexdigest() == mark["tar_sha256"]
        return "" if is_whole else "is marked, and its tar has other bytes"


def dataset_in(objects: dict[str, bytes]) -> dict[str, bytes]:
    """What has to be the same in every run."""
    return {name: data for name, data in objects.items() if name != "_flowprep/runs.jsonl"}
