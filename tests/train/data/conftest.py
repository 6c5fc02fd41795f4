"""Datasets made by the real command, once for all tests here."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flowprep.synth import Motion, render, write_video

Extract = Callable[..., Path]
sys.path.append(str(Path(__file__).parent))

HEIGHT, WIDTH = 64, 88
PLAIN = ("--workers", "1", "--engine", "cpu", "--size", "native")


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos without labels: fast enough to leave a bound of 5 px, and upright."""
    folder = tmp_path_factory.mktemp("unlabelled")
    fast = Motion(dx_px=6.5, dy_px=-1.25)
    write_video(folder / "fast.mp4", render(fast, 18, HEIGHT, WIDTH, seed=1), 25, crf=4)
    upright = render(Motion(dx_px=1.0), 37, WIDTH, HEIGHT, seed=2)
    write_video(folder / "upright.mp4", upright, 25, crf=4)
    return folder


@pytest.fixture(scope="session")
def i3d(videos: Path, tmp_path_factory: pytest.TempPathFactory, extract: Extract) -> Path:
    """The map of denseflow, bound 5, images in a zip for RGB."""
    options = ["--flow-map", "i3d", "--bound", "5", "--rgb-codec", "jpeg"]
    return extract(videos, tmp_path_factory.mktemp("i3d") / "shards", *PLAIN, *options)


@pytest.fixture(scope="session")
def int16(videos: Path, tmp_path_factory: pytest.TempPathFactory, extract: Extract) -> Path:
    """Flow of 16 bits, beyond the 20 px of a batch in no place; RGB lossless."""
    options = ["--flow-map", "int16", "--flow-codec", "ffv1-flow16", "--rgb-codec", "ffv1"]
    return extract(videos, tmp_path_factory.mktemp("int16") / "shards", *PLAIN, *options)


@pytest.fixture
def open_files() -> Callable[[], int]:
    """Counts the tars that this process holds open, without those that nothing holds any more."""

    def count() -> int:
        gc.collect()
        links = Path("/proc/self/fd").iterdir()
        return sum(os.path.realpath(link).endswith(".tar") for link in links)

    return count
