"""Small datasets to export, one with real flow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowprep.shard.index import load_index
from flowprep.shard.layout import Layout
from flowprep.shard.reader import read_at
from flowprep.shard.schema import SampleInfo
from flowprep.synth import Motion, render, write_video

VIDEOS = ("train/ride bike/a.mp4", "train/walk/b.x.mp4", "val/walk/c.mp4")
N_FRAMES, HEIGHT, WIDTH = 8, 48, 64


@dataclass(frozen=True)
class Stored:
    """A sample as its codecs give it back."""

    info: SampleInfo
    rgb: np.ndarray  # [T, H, W, 3]
    codes: np.ndarray  # [T-1, 2, H, W]

    @property
    def flow_px(self) -> np.ndarray:
        """As docs/format.md has it."""
        centred = self.codes.astype(np.float32) - np.float32(self.info.flow_zero_code)
        return centred * np.float32(self.info.flow_px_per_code)


def write_tree(root: Path, names: tuple[str, ...], n_frames: int = N_FRAMES) -> Path:
    for seed, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        motion = Motion(dx_px=1.0 + seed % 3, dy_px=-0.7)
        write_video(path, render(motion, n_frames, HEIGHT, WIDTH, seed), 25)
    return root


def read_all(out: Path) -> dict[str, Stored]:
    """path of the video -> its sample."""
    from flowprep.codec.base import get_codec

    found = {}
    for shard, row in load_index(Layout(out).index):
        sample = read_at(Layout(out).tar(shard), row)
        info = sample.info
        rgb = get_codec(info.rgb_codec, ["rgb"]).read(sample.members[info.rgb_member])
        codes = get_codec(info.flow_codec, ["flow8"]).read(sample.members[info.flow_member])
        codes = codes.reshape(len(codes), 2, info.height, info.width)
        found[row.path] = Stored(info, rgb, codes)
    return found


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory, extract: Callable[..., Path]) -> Path:
    """Three videos in two classes and two splits, flow by engine cpu, all of it lossless."""
    root = tmp_path_factory.mktemp("export")
    source = write_tree(root / "videos", VIDEOS)
    options = ["--size", "native", "--rgb-codec", "ffv1", "--flow-codec", "ffv1-flow"]
    return extract(source, root / "shards", "--quiet", "--engine", "cpu", *options)


@pytest.fixture(scope="session")
def stored(dataset: Path) -> dict[str, Stored]:
    return read_all(dataset)


@pytest.fixture(scope="session")
def exported(
    dataset: Path, tmp_path_factory: pytest.TempPathFactory, cli: Callable[..., Any]
) -> Callable[..., Path]:
    """exported("--to", "npz", ...) gives the folder of such an export, made once."""
    made: dict[tuple[str, ...], Path] = {}

    def export(*options: str) -> Path:
        if options not in made:
            out = tmp_path_factory.mktemp("exported") / "out"
            result = cli("export", dataset, "--out", out, *options)
            assert result.exit_code == 0, result.output
            made[options] = out
        return made[options]

    return export
