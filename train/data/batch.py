"""What the loader hands to training and evaluation. Axis order and units are stated here, once."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

FLOW_CLIP_PX = 20.0
"""Flow is clipped to this many pixels a frame step and divided by it, whatever a shard's bound."""


class Batch(NamedTuple):
    """Windows of T frames and their T flows, cropped alike. What was not asked for is [B, 0].

    rgb_B3THW   uint8   red, green, blue, 0..255; colours innermost in memory (channels_last_3d)
    flow_B2THW  float32 dx to the right, dy downward, in units of FLOW_CLIP_PX, within -1..1;
                flow t leads from frame t to the next frame at the stored rate
    label_B     int64   class; -1 where there is none
    video_B     int64   number of the video in the table of samples
    """

    rgb_B3THW: Tensor
    flow_B2THW: Tensor
    label_B: Tensor
    video_B: Tensor


def rgb_input(rgb_B3THW: Tensor) -> Tensor:
    """uint8 0..255 -> float32 -1..1, as D3D's authors say (princeton-vl/d3dhelper issue 3)."""
    return rgb_B3THW.float().mul_(2 / 255).sub_(1)


def network_input(batch: Batch, modality: str) -> Tensor:
    """What a network of "rgb" or "flow" sees: float32 [B, 3 or 2, T, H, W] within -1..1."""
    return batch.flow_B2THW if modality == "flow" else rgb_input(batch.rgb_B3THW)
