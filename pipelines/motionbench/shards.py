"""From videos to shards by `flowprep extract`, and how far their flow is from the truth."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flowprep.codec.base import get_codec
from flowprep.errors import FlowprepError
from flowprep.records import F64
from flowprep.shard.index import load_index
from flowprep.shard.layout import Layout
from flowprep.shard.reader import flow_px, read_at
from pipelines.motionbench.dataset import Video
from pipelines.motionbench.motions import MOTIONS
from pipelines.motionbench.render import flows
from pipelines.motionbench.scales import Scale

GATE_PX = 0.5
BORDER_PX = 6  # where the flow of what leaves the picture is anyone's guess


def extract(videos: Path, shards: Path, engine: str) -> None:
    """Run `flowprep extract`, or let it go on. Raises FlowprepError unless every clip was made.

    An interrupt is passed on, and waited for, so that no worker is left behind.
    """
    command = [sys.executable, "-m", "flowprep", "extract", "--src", str(videos)]
    options = ["--size", "native", "--labels", "none", "--executor", "local", "--engine", engine]
    with subprocess.Popen([*command, "--out", str(shards), *options]) as running:
        try:
            code = running.wait()
        except BaseException:
            running.terminate()
            raise
    if code:
        raise FlowprepError(
            f"flowprep extract ended with {code}", "its last lines say why; run this again"
        )


def check_flow(scale: Scale, shards: Path, videos: Sequence[Video]) -> dict[str, Any]:
    """End-point errors of the flow in the shards against the known motion, pixels.

    The median over pixels of all clips, at least BORDER_PX inside the picture: of all of them, of
    the patch and of the background, and of the patch by motion.
    """
    layout = Layout(shards)
    rows = {row.path: (shard, row) for shard, row in load_index(layout.index)}
    errors: defaultdict[str, list[F64]] = defaultdict(list)
    for video in videos:
        if video.path not in rows:
            raise FlowprepError(
                f"{shards} has no sample of {video.path}",
                "give another --out: this one is of another scale",
            )
        shard, row = rows[video.path]
        sample = read_at(layout.tar(shard), row)
        info = sample.info
        codes = get_codec(info.flow_codec, ["flow8"]).read(sample.members[info.flow_member])
        for name, found in _errors(scale, video, flow_px(info, codes)):
            errors[name].append(found)
    medians = {name: float(np.median(np.concatenate(found))) for name, found in errors.items()}
    return {
        "engine": info.engine,
        "clips": len(videos),
        "limit_px": GATE_PX,
        "median_epe_px": {name: medians.pop(name) for name in ("all", "patch", "background")},
        "median_epe_px_of_patch": {name: medians[name] for name in MOTIONS if name in medians},
        "p95_epe_px": float(np.percentile(np.concatenate(errors["all"]), 95)),
    }


def _errors(scale: Scale, video: Video, found_T2HW: Any) -> list[tuple[str, F64]]:
    """Errors of all pixels of a clip, of those of its patch, twice, and of the others."""
    inner = slice(BORDER_PX, -BORDER_PX)
    listed = []
    truth = flows(video.scene(scale), video.motion)
    for found_2HW, (flow_2HW, is_patch_HW) in zip(found_T2HW, truth, strict=True):
        off = np.hypot(*(found_2HW - flow_2HW))[inner, inner].astype(np.float64)
        patch = is_patch_HW[inner, inner]
        listed += [("all", off.ravel()), ("background", off[~patch])]
        listed += [(name, off[patch]) for name in ("patch", MOTIONS[video.motion])]
    return listed


def require_flow(found: dict[str, Any]) -> None:
    """Raise FlowprepError unless the flow is near enough to the truth to teach it."""
    medians = found["median_epe_px"]
    if worst := {n: px for n, px in medians.items() if not px < GATE_PX}:
        told = ", ".join(f"{name} {px:.2f} px" for name, px in worst.items())
        raise FlowprepError(
            f"the flow of the shards is off by a median of {told}, {GATE_PX} px are allowed",
            "a teacher of this flow would prove nothing: change the textures or the engine",
        )
