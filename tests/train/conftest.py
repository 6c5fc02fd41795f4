"""What tests of training share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from flowprep.synth import Motion, render, write_video
from train.common import Place

HEIGHT, WIDTH, N_FRAMES = 64, 88, 40
MOTIONS = {
    "down": Motion(dy_px=1.5),
    "left": Motion(dx_px=-2.0),
    "right": Motion(dx_px=2.0),
}
VIDEOS_PER_CLASS = 3


PLAIN = ("--workers", "1", "--engine", "cpu", "--size", "native")
"""Options of flowprep extract that make a small dataset as it is, fast."""


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory, extract: Callable[..., Path]) -> Path:
    """Three classes of three videos of two clips of 20 frames, in several shards."""
    folder = tmp_path_factory.mktemp("labelled")
    for number, (name, motion) in enumerate(MOTIONS.items()):
        (folder / "videos" / name).mkdir(parents=True)
        for take in range(VIDEOS_PER_CLASS):
            frames = render(motion, N_FRAMES, HEIGHT, WIDTH, seed=10 * number + take)
            write_video(folder / "videos" / name / f"{take}.mp4", frames, 25, crf=4)
    return extract(folder / "videos", folder / "shards", *PLAIN, "--clip-frames", "20")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Small networks on a busy machine wait for threads more than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def here() -> Place:
    """One process on the CPU, in float32."""
    return Place(0, 1, torch.device("cpu"), False)
