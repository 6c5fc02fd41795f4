"""`flowprep demo`: render videos with known motion, extract, verify, show what came back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from flowprep.codec.base import get_codec
from flowprep.config import Settings
from flowprep.errors import FlowprepError
from flowprep.records import F32, U8
from flowprep.report.color import flow_to_rgb
from flowprep.run.executors import Resources
from flowprep.run.extract import extract
from flowprep.run.prepare import Request
from flowprep.run.progress import make_display
from flowprep.run.tell import tell_summary
from flowprep.shard.index import load_index
from flowprep.shard.layout import Layout
from flowprep.shard.reader import flow_px, read_at
from flowprep.synth import Motion, render, write_video
from flowprep.verify.check import verify
from flowprep.verify.tell import tell_findings

HEIGHT, WIDTH, N_FRAMES, FPS = 128, 160, 16, 25
VIDEOS_PER_CLASS = 4
BORDER_PX = 12  # flow is undefined where the texture comes in
CLASSES = {
    "left": Motion(dx_px=-2.0),
    "right": Motion(dx_px=2.0),
    "up": Motion(dy_px=-1.5),
    "down": Motion(dy_px=1.5),
    "turn": Motion(rotate_deg=1.5),
    "zoom in": Motion(zoom=1.02),
}


@dataclass(frozen=True)
class Shown:
    """One sample, decoded: a frame, its flow, and how far that is from the truth."""

    label: str
    frame: U8
    uv: F32
    error_px: float


def run_demo(folder: Path, executor: str) -> None:
    """Fill `folder` with videos/, shards/, preview.png. Raises FlowprepError when it is in use."""
    videos, shards = folder / "videos", folder / "shards"
    if folder.exists() and any(folder.iterdir()) and not videos.is_dir():
        raise FlowprepError(f"{folder} holds other files", "give a new folder: flowprep demo DIR")
    console = Console(highlight=False)
    console.print(f"1. render {len(CLASSES) * VIDEOS_PER_CLASS} videos to {videos}", markup=False)
    render_videos(videos)
    console.print(f"2. flowprep extract --src {videos} --out {shards} --size native", markup=False)
    display = make_display(log_json=False, quiet=False)
    request = Request(
        src=str(videos),
        out=str(shards),
        settings=Settings(short_side=0),
        resources=Resources(executor=executor),
    )
    tell_summary(extract(request, display), str(shards), display, as_json=False)
    console.print(f"3. flowprep verify {shards} --deep", markup=False)
    tell_findings(verify(shards, deep=True), shards, deep=True)
    shown = [show_class(shards, label) for label in CLASSES]
    write_picture(folder / "preview.png", shown)
    console.print(_table(shown))
    console.print(f"Look at {folder / 'preview.png'}: frames above their flow.", markup=False)


def render_videos(folder: Path) -> None:
    """A class tree: `folder`/class/number.mp4."""
    for label, motion in CLASSES.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(VIDEOS_PER_CLASS):
            path = folder / label / f"{number}.mp4"
            if not path.exists():
                seed = 100 * list(CLASSES).index(label) + number
                write_video(path, render(motion, N_FRAMES, HEIGHT, WIDTH, seed), FPS)


def show_class(shards: Path, label: str) -> Shown:
    """Decode the first sample of a class and compare it with its motion."""
    layout = Layout(shards)
    shard, row = next(item for item in load_index(layout.index) if item[1].label == label)
    sample = read_at(layout.tar(shard), row)
    info = sample.info
    frames = get_codec(info.rgb_codec, ["rgb"]).read(sample.members[info.rgb_member])
    codes = get_codec(info.flow_codec, ["flow8"]).read(sample.members[info.flow_member])
    flow = flow_px(info, codes)
    off = flow - CLASSES[label].flow_T2HW(info.n_frames, info.height, info.width)
    inner = off[..., BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX]
    error_px = float(np.hypot(inner[:, 0], inner[:, 1]).mean())
    middle = info.n_flows // 2
    return Shown(label, frames[middle], flow[middle], error_px)


def write_picture(path: Path, shown: list[Shown]) -> None:
    """Each class's frame above its flow as colour."""
    import cv2

    longest_px = max(float(np.hypot(*one.uv).max()) for one in shown)
    columns = [np.vstack([one.frame, flow_to_rgb(one.uv, longest_px)]) for one in shown]
    cv2.imwrite(str(path), np.hstack(columns)[..., ::-1])


def _table(shown: list[Shown]) -> Table:
    table = Table("class", "mean flow, px (dx, dy)", "mean error to the truth, px")
    for one in shown:
        dx, dy = one.uv.mean(axis=(1, 2))
        table.add_row(one.label, f"{dx:+.2f}, {dy:+.2f}", f"{one.error_px:.3f}")
    return table
