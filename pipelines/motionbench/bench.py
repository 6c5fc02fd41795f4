"""One experiment on disk: where its parts are, and what was found so far."""

from __future__ import annotations

import json
import os
import platform
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from flowprep.errors import FlowprepError
from pipelines.motionbench.dataset import Task
from pipelines.motionbench.scales import SCALES, Scale
from train.checkpoint import code_commit, versions, write_whole
from train.common import Place, place
from train.config import Data


@dataclass(frozen=True)
class Bench:
    """The folder of an experiment."""

    scale_name: str
    out: Path
    device: str  # cpu or cuda
    engine: str  # of flowprep extract

    @property
    def scale(self) -> Scale:
        return SCALES[self.scale_name]

    @property
    def videos(self) -> Path:
        return self.out / "videos"

    @property
    def shards(self) -> Path:
        return self.out / "shards"

    @property
    def results(self) -> Path:
        """All that the page is made from."""
        return self.out / "results"

    def run(self, name: str) -> Path:
        """The folder of a trained network."""
        return self.out / "runs" / name

    def data(self, task: Task, frames: int | None = None, shuffled: bool = False) -> Data:
        """What a network is trained on."""
        return Data(
            shards=str(self.shards),
            labels=str(self.out / "labels" / f"{task}.csv"),
            frames=frames or self.scale.window,
            crop=self.scale.crop,
            shuffle_frames=shuffled,
        )

    def has(self, name: str) -> bool:
        return self._result(name).exists()

    def read(self, name: str) -> dict[str, Any]:
        """A result."""
        found: dict[str, Any] = json.loads(self._result(name).read_text(encoding="utf-8"))
        return found

    def write(self, name: str, found: dict[str, Any]) -> None:
        """Keep a result, with where it was found: whole or not at all."""
        told = {"scale": self.scale_name, **found, **where(self.device)}
        write_whole(self._result(name), (json.dumps(told, indent=1) + "\n").encode())

    def _result(self, name: str) -> Path:
        return self.results / f"{name}.json"

    def place(self) -> AbstractContextManager[Place]:
        """Where networks run."""
        return place(self.device, "auto")

    def begin(self) -> None:
        """Take the folder. Raises FlowprepError where it is that of another experiment."""
        path = self.results / "scale.json"
        mine = json.loads(json.dumps(asdict(self.scale)))
        if not path.exists():
            write_whole(path, (json.dumps(mine, indent=1) + "\n").encode())
        elif (theirs := json.loads(path.read_text(encoding="utf-8"))) != mine:
            odd = sorted(n for n in {*mine, *theirs} if mine.get(n) != theirs.get(n))
            raise FlowprepError(
                f"{self.out} is an experiment with other settings: {', '.join(odd)}",
                "give another --out",
            )


def where(device: str) -> dict[str, Any]:
    """Machine, commit and versions."""
    gpu = torch.cuda.get_device_name() if device == "cuda" else ""
    return {
        "machine": {"cpu": _cpu_model(), "cores": len(os.sched_getaffinity(0)), "gpu": gpu},
        "commit": code_commit(),
        "versions": {"python": platform.python_version(), **versions()},
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
