"""What probing would tell of a video."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from flowprep.records import Media


def media_of(pts: Sequence[int] | np.ndarray, time_base: Fraction, end_pts: int) -> Media:
    """A small H.264 video with these frame times."""
    return Media(
        container="mov",
        codec="h264",
        pix_fmt="yuv420p",
        width=64,
        height=48,
        rotation_deg=0,
        sar=Fraction(1),
        transfer="",
        time_base=time_base,
        pts=np.array(pts, np.int64),
        end_pts=end_pts,
    )
