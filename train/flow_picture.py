"""Pictures of predicted flow beside the flow it should be."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from flowprep.records import F32, U8
from flowprep.report.color import flow_to_rgb
from train.checkpoint import write_whole

PANEL, GAP, LINE = 224, 8, 22  # side of a panel, white between panels, height of a line of text
COLUMNS = ("first RGB frame", "TV-L1", "decoded from RGB")
WHEEL = 180  # side of the colour wheel


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
    head = [_text(name, PANEL) for name in COLUMNS]
    rows = [_beside(head)] + [_beside(_panels(one, longest_px)) for one in shown]
    body = _beside([_below(rows), _legend(longest_px, unit)])
    titles = [_text(line, body.shape[1]) for line in textwrap.wrap(title, 115)]
    write_whole(path, _png(_framed(_below([*titles, body]))))


def _panels(one: Shown, longest_px: float) -> list[U8]:
    flows = (flow_to_rgb(flow, longest_px) for flow in (one.target_2HW, one.flow_2HW))
    return [_resized(one.frame_HW3, smooth=True), *(_resized(flow) for flow in flows)]


def _resized(picture_HW3: U8, *, smooth: bool = False) -> U8:
    """A square of side PANEL."""
    import cv2

    method = cv2.INTER_AREA if smooth else cv2.INTER_NEAREST_EXACT
    resized: U8 = cv2.resize(picture_HW3, (PANEL, PANEL), interpolation=method)
    return resized


def _legend(longest_px: float, unit: str) -> U8:
    """The wheel of all directions, and what its rim stands for."""
    at = np.linspace(-1, 1, WHEEL, dtype=np.float32)
    xy_2HW = np.stack(np.meshgrid(at, at))
    wheel = flow_to_rgb(xy_2HW, 1.0)
    wheel[np.hypot(*xy_2HW) > 1] = 255
    says = ["red: to the right", f"rim: {longest_px:.2f} or longer", *textwrap.wrap(unit, 30)]
    words = [_text(line, PANEL + 2 * GAP) for line in says]
    return _below([_text("", WHEEL), wheel, *words])


def _text(text: str, width: int) -> U8:
    """A line of black text on white."""
    import cv2

    line = np.full((LINE, width, 3), 255, np.uint8)
    cv2.putText(line, text, (2, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return line


def _beside(parts: Sequence[U8]) -> U8:
    height = max(len(part) for part in parts)
    return np.hstack([_padded(part, height, part.shape[1] + GAP) for part in parts])


def _below(parts: Sequence[U8]) -> U8:
    width = max(part.shape[1] for part in parts)
    return np.vstack([_padded(part, len(part) + GAP // 2, width) for part in parts])


def _padded(picture_HW3: U8, height: int, width: int) -> U8:
    """White below and at the right, up to this size."""
    down, right = height - len(picture_HW3), width - picture_HW3.shape[1]
    return np.pad(picture_HW3, ((0, down), (0, right), (0, 0)), constant_values=255)


def _framed(picture_HW3: U8) -> U8:
    return np.pad(picture_HW3, ((GAP, GAP), (GAP, GAP), (0, 0)), constant_values=255)


def _png(picture_HW3: U8) -> bytes:
    import cv2

    data: npt.NDArray[np.uint8] = cv2.imencode(".png", picture_HW3[..., ::-1])[1]
    return data.tobytes()
