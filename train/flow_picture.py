"""Pictures of predicted flow beside the flow it should be."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from flowprep.records import F32, U8
from flowprep.report.color import flow_to_rgb
from flowprep.report.picture import (
    GAP,
    WHEEL,
    below,
    beside,
    framed,
    legend,
    png,
    resized,
    text,
)
from train.checkpoint import write_whole

PANEL = 224  # side of a panel
COLUMNS = ("first RGB frame", "TV-L1", "decoded from RGB")


@dataclass(frozen=True)
class Shown:
    """One time step of one clip: its first frame, the flow that was meant and the one decoded."""

    frame_HW3: U8
    target_2HW: F32  # pixels
    flow_2HW: F32  # pixels


def longest(shown: Sequence[Shown]) -> float:
    """Length of the longest target vector, pixels: what has the full colour in the picture."""
    found = max(float(np.hypot(*one.target_2HW).max()) for one in shown)
    return found if found > 0 else 1.0


def middle_step(rgb_3THW: Tensor, target_2THW: Tensor, flow_2THW: Tensor) -> Shown:
    """The middle step of a clip's features, from its uint8 frames and both flows in pixels."""
    steps, frames = target_2THW.shape[1], rgb_3THW.shape[1]
    t = steps // 2
    frame_HW3 = rgb_3THW[:, t * frames // steps].permute(1, 2, 0).numpy()
    return Shown(frame_HW3, target_2THW[:, t].cpu().numpy(), flow_2THW[:, t].cpu().numpy())


def write_picture(path: Path, shown: Sequence[Shown], title: str, unit: str) -> None:
    """Write a PNG: `title`, a row for each, a colour wheel at the right.

    All flow has one scale, `longest(shown)` in `unit`, written under the wheel. Cells of the grid
    are squares of one colour. Raises OSError; the old file stays then.
    """
    longest_px = longest(shown)
    head = [text(name, PANEL) for name in COLUMNS]
    rows = [beside(head)] + [beside(_panels(one, longest_px)) for one in shown]
    scale = below([text("", WHEEL), legend(longest_px, unit, PANEL + 2 * GAP)])
    body = beside([below(rows), scale])
    titles = [text(line, body.shape[1]) for line in textwrap.wrap(title, 115)]
    write_whole(path, png(framed(below([*titles, body]))))


def _panels(one: Shown, longest_px: float) -> list[U8]:
    flows = (flow_to_rgb(flow, longest_px) for flow in (one.target_2HW, one.flow_2HW))
    frame = resized(one.frame_HW3, PANEL, PANEL, smooth=True)
    return [frame, *(resized(flow, PANEL, PANEL) for flow in flows)]
