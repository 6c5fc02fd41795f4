"""Fixtures every test may use."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flowprep.cli import main
from flowprep.synth import Motion, render, write_video

sys.path.append(str(Path(__file__).parent))
MakeVideo = Callable[..., Path]
Cli = Callable[..., Result]
Extract = Callable[..., Path]
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of sample material beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("the sample material ../shared is not beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def shared_videos(shared: Path) -> list[Path]:
    return sorted((shared / "videos").iterdir())


@pytest.fixture(scope="session")
def make_video(tmp_path_factory: pytest.TempPathFactory) -> MakeVideo:
    """make_video(path, n_frames=8, fps=25) writes a small moving texture, rendered once."""
    folder = tmp_path_factory.mktemp("rendered")

    @cache
    def rendered(suffix: str, n_frames: int, fps: int) -> bytes:
        path = folder / f"{n_frames}-{fps}{suffix}"
        write_video(path, render(Motion(dx_px=1.5), n_frames, 48, 64), fps)
        return path.read_bytes()

    def make(path: Path, n_frames: int = 8, fps: int = 25) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rendered(path.suffix, n_frames, fps))
        return path

    return make


@pytest.fixture(scope="session")
def cli() -> Iterator[Cli]:
    """cli("verify", folder, ...) runs a command in this process; what is no exit comes out.

    `flowprep extract` leaves its handler of SIGTERM, which is taken back at the end.
    """
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(main, [str(a) for a in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def extract() -> Extract:
    """extract(src, out, *options): `flowprep extract` in a process of its own; it must succeed."""

    def run(src: Path, out: Path, *options: str) -> Path:
        command = [sys.executable, "-m", "flowprep", "extract", "--src", str(src)]
        place = ["--out", str(out), "--executor", "local"]
        done = subprocess.run(
            [*command, *place, *options], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return out

    return run
