"""Data sets that docs/hours.md is about, as their papers describe them."""

from __future__ import annotations

from dataclasses import dataclass

from flowprep.bench.clip import HEIGHT, WIDTH
from flowprep.config import Settings
from flowprep.decode.geometry import target_size


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """How much video there is, and where that is said. `aspect` is width, height of a source."""

    name: str
    clips: float
    clip_s: float
    aspect: tuple[int, int]
    source: str

    @property
    def hours(self) -> float:
        return self.clips * self.clip_s / 3600

    @property
    def n_frames(self) -> float:
        """At the default rate, which sources of less do not reach; about as many flows."""
        return self.hours * 3600 * Settings().fps

    @property
    def size(self) -> tuple[int, int]:
        return target_size(*self.aspect, Settings().short_side, None)

    @property
    def relative_pixels(self) -> float:
        """Of a frame, to those of the clip that rates are measured on."""
        return self.size[0] * self.size[1] / (WIDTH * HEIGHT)


KINETICS = "of 10 s, of any size and rate"
DATA_SETS = (
    DataSet(
        name="UCF101",
        clips=13_320,
        clip_s=27 * 3600 / 13_320,
        aspect=(320, 240),
        source="13,320 clips, 27 hours, 320x240 at 25 frames/s "
        "([Soomro 2012](https://arxiv.org/abs/1212.0402))",
    ),
    DataSet(
        name="Kinetics-400",
        clips=306_245,
        clip_s=10,
        aspect=(16, 9),
        source=f"306,245 clips {KINETICS} ([Kay 2017](https://arxiv.org/abs/1705.06950))",
    ),
    DataSet(
        name="Kinetics-700",
        clips=650_317,
        clip_s=10,
        aspect=(16, 9),
        source=f"650,317 clips {KINETICS} ([Carreira 2019](https://arxiv.org/abs/1907.06987))",
    ),
    DataSet(
        name="a million hours",
        clips=1_000_000,
        clip_s=3600,
        aspect=(16, 9),
        source="not a published one: a million videos of an hour",
    ),
)
