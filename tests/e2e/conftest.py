"""Datasets made by the real command, once for all tests here."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flowprep.synth import Motion, render, write_video

Extract = Callable[..., Path]

MOTIONS = {
    "whole": Motion(dx_px=2.0, dy_px=-1.0),
    "subpixel": Motion(dx_px=0.37, dy_px=0.81),
    "turn": Motion(rotate_deg=1.0),
    "zoom": Motion(zoom=1.015),
    "still": Motion(),
}


@pytest.fixture(autouse=True)
def _webdataset_leaves_files_open() -> Iterator[None]:
    """Collect what webdataset leaves open here, where its warning may be ignored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


@pytest.fixture(scope="session")
def motion_shards(tmp_path_factory: pytest.TempPathFactory, extract: Extract) -> Path:
    """A labelled dataset of rendered motions, one class and two videos each."""
    folder = tmp_path_factory.mktemp("motions")
    for number, (name, motion) in enumerate(MOTIONS.items()):
        (folder / "videos" / name).mkdir(parents=True)
        for take in range(2):
            frames = render(motion, 5, 96, 128, seed=10 * number + take)
            write_video(folder / "videos" / name / f"{take}.mp4", frames, 25, crf=4)
    return extract(folder / "videos", folder / "shards", "--size", "native", "--engine", "cpu")


@pytest.fixture(scope="session")
def sample_shards(
    shared_videos: list[Path], tmp_path_factory: pytest.TempPathFactory, extract: Extract
) -> Path:
    """All sample videos at 10 frames a second, with the engine that costs nothing."""
    out = tmp_path_factory.mktemp("samples") / "shards"
    return extract(shared_videos[0].parent, out, "--fps", "10", "--engine", "constant")
