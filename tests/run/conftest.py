"""Sources of small videos, and `flowprep extract` as a user starts it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from flowprep.shard.layout import Layout
from flowprep.synth import Motion, render, write_video

MAIN = (  # a shell starts background jobs with SIGINT ignored; a user's command has it
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from flowprep.cli import main; main()"
)
FLOWPREP = [sys.executable, "-c", MAIN]
OPTIONS = ["--engine", "constant", "--size", "64", "--quiet"]
WAIT_S = 120.0


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    said: str


@dataclass(frozen=True)
class Extract:
    """`flowprep extract` from one source, with one executor."""

    src: Path
    executor: str = "local"
    options: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)

    def command(self, out: Path, *more: str) -> list[str]:
        places = ["--src", str(self.src), "--out", str(out), "--executor", self.executor]
        return [*FLOWPREP, "extract", *places, *OPTIONS, *self.options, *more]

    def start(self, out: Path, *more: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(out, *more),
            env={**os.environ, **self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, out: Path, *more: str, **env: str) -> Ended:
        with self.start(out, *more, **env) as process:
            said, _ = process.communicate(timeout=WAIT_S)
        return Ended(process.returncode, said)

    def must(self, out: Path, *more: str, code: int = 0) -> Path:
        """Run to the end; the exit code has to be this one."""
        ended = self.run(out, *more)
        assert ended.code == code, ended.said
        return out


@dataclass(frozen=True)
class Repair(Extract):
    """`flowprep verify --repair` with the videos at `src`."""

    def command(self, out: Path, *more: str) -> list[str]:
        places = [str(out), "--repair", "--src", str(self.src), "--executor", self.executor]
        return [*FLOWPREP, "verify", *places, *self.options, *more]


@dataclass(frozen=True)
class Running(Extract):
    """`flowprep COMMAND SHARDS ...`; `src` is the name of the command."""

    def command(self, out: Path, *more: str) -> list[str]:
        return [*FLOWPREP, str(self.src), str(out), *more]


def _video(path: Path, seed: int, n_frames: int = 6, side_px: int = 64) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, render(Motion(dx_px=1.0 + seed % 3), n_frames, side_px, side_px, seed), 25)
    return path


def _tree(out: Path) -> dict[str, str]:
    """What lies below a folder: path -> hash of the bytes, "folder", or "link".

    Without the list of the runs that made it, which is another for each way there.
    """
    found = {}
    for path in sorted(set(out.rglob("*")) - {Layout(out).runs}):
        name = path.relative_to(out).as_posix()
        if path.is_symlink() or path.is_dir():
            found[name] = "link" if path.is_symlink() else "folder"
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@pytest.fixture(scope="session")
def video() -> Callable[..., Path]:
    """Writes a small video with known motion."""
    return _video


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], dict[str, str]]:
    return _tree


@pytest.fixture(scope="session")
def extracting() -> type[Extract]:
    return Extract


@pytest.fixture(scope="session")
def repairing() -> type[Repair]:
    return Repair


@pytest.fixture(scope="session")
def running() -> type[Running]:
    return Running
