"""Runs into a bucket whose server fails, and what must come of them."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s3server import S3
from watching import dataset_in

OPTIONS = ("--executor", "local", "--workers", "1", "--engine", "cpu", "--size", "32")
PATIENCE_S = "9"
"""Not three minutes, where a case needs storage that is given up."""


@dataclass
class Site:
    """The server, the videos in its bucket, and the dataset that each case must end with."""

    s3: S3
    folder: Path
    options: tuple[str, ...]
    expected: dict[str, bytes] = field(default_factory=dict)

    @property
    def n_shards(self) -> int:
        return sum(name.endswith(".tar") for name in self.expected)

    def command(self, out: str) -> tuple[str, ...]:
        return ("extract", "--src", "s3://data/videos", "--out", out, *self.options)

    def scratch(self, name: str) -> Path:
        folder = self.folder / "scratch" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


@dataclass
class Case:
    """Runs into one folder of the bucket, and what came of them."""

    site: Site
    name: str
    seconds: list[float] = field(default_factory=list)
    exits: list[int] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    n_requests: int = 0

    @property
    def out(self) -> str:
        return f"s3://data/{self.name}"

    @property
    def env(self) -> dict[str, str]:
        return {"FLOWPREP_SCRATCH": str(self.site.scratch(self.name)), "PATIENCE_S": PATIENCE_S}

    def marks(self) -> int:
        names = self.site.s3.keys("data", f"{self.name}/_flowprep/shards/")
        return sum(name.endswith(".json") for name in names)

    def run(self, **faults: Any) -> subprocess.CompletedProcess[str]:
        self.site.s3.fault(**faults)
        started_s = time.monotonic()
        done = self.site.s3.flowprep(*self.site.command(self.out), **self.env)
        self._note(started_s, done.returncode)
        return done

    def kill(self, is_time: Callable[[], bool], **faults: Any) -> None:
        """Kill the driver when it is time; its workers end by themselves."""
        self.site.s3.fault(**faults)
        started_s = time.monotonic()
        with self.site.s3.start(*self.site.command(self.out), **self.env) as process:
            while not is_time() and process.poll() is None:
                time.sleep(0.02)
            process.kill()
            process.communicate(timeout=60)  # to the end of the workers, who have these pipes too
        self._note(started_s, process.returncode)
        assert process.returncode == -9, f"it ended before it was killed: {process.returncode}"

    def _note(self, started_s: float, code: int) -> None:
        self.seconds.append(round(time.monotonic() - started_s, 1))
        self.exits.append(code)
        self.faults += self.site.s3.happened()
        self.n_requests += len(self.site.s3.requests())

    def finish(self, **faults: Any) -> None:
        """A run to the end, and then the bytes of the run on disk and nothing else."""
        done = self.run(**faults)
        assert done.returncode == 0, done.stderr
        s3 = self.site.s3
        found = dataset_in(s3.objects("data", f"{self.name}/"))
        assert found.keys() == self.site.expected.keys(), found.keys() ^ self.site.expected.keys()
        other = [name for name in found if found[name] != self.site.expected[name]]
        assert not other, f"other bytes than on disk: {other}"
        assert not s3.unfinished("data", f"{self.name}/"), "uploads that nobody ends"
        left = [path for path in self.site.scratch(self.name).rglob("*") if path.is_file()]
        assert not left, left

    def stop(self, *told: str, **faults: Any) -> None:
        """A run that ends before its end, and says why."""
        done = self.run(**faults)
        said = " ".join(done.stderr.split())
        assert done.returncode == 2, (done.returncode, done.stderr)
        missing = [text for text in (f"{self.out}/", *told) if text not in said]
        assert not missing, (missing, done.stderr)
        assert "Traceback" not in said, done.stderr
        assert self.marks() < self.site.n_shards, "it was done before anything went wrong"
