"""What a dry run foretells, against what the run then takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from flowprep.codec.base import CODECS
from flowprep.run.estimate import BYTES_PER_PIXEL


def test_every_codec_has_a_figure() -> None:
    assert set(BYTES_PER_PIXEL) == set(CODECS)


def test_the_plan_is_what_comes_true(
    sample_shards: Path, shared_videos: list[Path], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "flowprep", "extract", "--src", str(shared_videos[0].parent)]
    command += ["--out", str(tmp_path / "o"), "--fps", "10", "--engine", "constant"]
    done = subprocess.run(
        [*command, "--dry-run", "--log-json"], capture_output=True, text=True, check=True
    )
    plan = json.loads(done.stdout.splitlines()[-1])
    dataset = json.loads((sample_shards / "_flowprep" / "dataset.json").read_text())
    assert (plan["clips"], plan["frames"], plan["flows"]) == (
        dataset["planned"],
        dataset["frames"],
        dataset["flows"],
    )
    assert dataset["bytes"] / 2 < plan["estimated_bytes"] < dataset["bytes"] * 2
    assert not (tmp_path / "o").exists()
