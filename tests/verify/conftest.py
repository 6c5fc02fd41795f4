"""A small dataset to damage. The folder is named, so that a test finds its neighbours here."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowprep.shard.layout import Layout
from flowprep.synth import Motion, render, write_video

sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory, cli: Callable[..., Any]) -> Path:
    """Two classes, twenty clips, one broken video; eight shards of some samples each.

    The videos lie in `videos` beside it. The list of its runs is gone: it may be damaged unseen.
    """
    folder = tmp_path_factory.mktemp("damage")
    for number in range(5):
        path = folder / "videos" / "ab"[number % 2] / f"clip{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, render(Motion(dx_px=number), 24, 48, 64, seed=number), 25)
    (folder / "videos" / "a" / "broken.mp4").write_bytes(b"no video")
    options = "--executor local --engine constant --size 48 --clip-frames 6 --max-failures 1"
    out = folder / "pristine"
    made = cli("extract", "--src", folder / "videos", "--out", out, *options.split())
    assert made.exit_code == 0, made.output
    Layout(out).runs.unlink()
    return out


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, tuple[str, int]]]:
    """What is below a folder: path -> (sha256, time it was written)."""

    def read(out: Path) -> dict[str, tuple[str, int]]:
        return {
            path.relative_to(out).as_posix(): (
                hashlib.sha256(path.read_bytes()).hexdigest(),
                path.stat().st_mtime_ns,
            )
            for path in sorted(out.rglob("*"))
            if path.is_file()
        }

    return read
