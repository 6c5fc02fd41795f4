"""Twelve motions of a patch, in pairs of which one is the other run backwards.

Every clip draws the displacement of all six pairs. The pair of its class runs; each other pair
stands still at the moment of a frame that is drawn at random. So a frame taken at random has the
same distribution of place, angle and size whatever the class is, and the frames of a clip without
their order are the same for both motions of a pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from flowprep.records import F64

MOTIONS = (
    *("left", "right"),
    *("up", "down"),
    *("clockwise", "counterclockwise"),
    *("expand", "contract"),
    *("orbit-clockwise", "orbit-counterclockwise"),
    *("horizontal-first", "vertical-first"),
)
"""Motion 2p runs pair p forwards, 2p + 1 backwards."""

N_PAIRS = len(MOTIONS) // 2
PALETTES = ("violet", "orange", "green", "blue")

SPEED_PX = (1.5, 2.2)  # a frame step
TURN_SPEED = 0.6  # of that at the radius: a large patch has bumps that go faster
GROWTH = (0.3, 0.6)  # log of the size at the end over that at the start
ORBIT_TURN = (1.1 * np.pi, 1.8 * np.pi)  # of the path, so that it does not look like a corner


def opposite(motion: int) -> int:
    """The motion that shows the same frames in the opposite order."""
    return motion ^ 1


class Placed(NamedTuple):
    """Where the patch is: its centre from the picture's, its angle and the log of its size."""

    dx_px: float  # to the right
    dy_px: float  # downward
    angle: float  # radians, clockwise on the screen
    log_size: float

    def plus(self, other: Placed) -> Placed:
        return Placed(*(a + b for a, b in zip(self, other, strict=True)))


@dataclass(frozen=True, kw_only=True)
class Paths:
    """What each pair does to the patch from moment 0 to moment 1, and where the others stand."""

    base: Placed
    travel_px: tuple[float, float]  # of the horizontal and the vertical pair
    turn: float  # radians
    growth: float
    orbit_px: float  # radius
    orbit_turn: float  # radians
    orbit_angle: float  # of the middle of the path
    corner_px: float  # length of each leg
    corner_signs: tuple[int, int]
    frozen: tuple[float, ...]  # the moment at which each pair stands where it does not run

    def placed(self, motion: int, moment: float) -> Placed:
        """The patch of a clip of this motion, at a moment of the clip, 0 to 1."""
        runs, backwards = divmod(motion, 2)
        moments = list(self.frozen)
        moments[runs] = 1 - moment if backwards else moment
        placed = self.base
        for pair, at in enumerate(moments):
            placed = placed.plus(self._of_pair(pair, at))
        return placed

    def _of_pair(self, pair: int, moment: float) -> Placed:
        """What a pair adds; at moment 1/2 the straight ones add nothing."""
        from_middle = moment - 0.5
        if pair == 0:
            return Placed(-self.travel_px[0] * from_middle, 0, 0, 0)
        if pair == 1:
            return Placed(0, -self.travel_px[1] * from_middle, 0, 0)
        if pair == 2:
            return Placed(0, 0, self.turn * from_middle, 0)
        if pair == 3:
            return Placed(0, 0, 0, self.growth * from_middle)
        if pair == 4:
            angle = self.orbit_angle + self.orbit_turn * from_middle
            return Placed(self.orbit_px * np.cos(angle), self.orbit_px * np.sin(angle), 0, 0)
        return self._corner(moment)

    def _corner(self, moment: float) -> Placed:
        """One leg to the side, then one up or down."""
        across, along = min(2 * moment, 1) - 0.5, max(2 * moment - 1, 0) - 0.5
        sign_x, sign_y = self.corner_signs
        return Placed(sign_x * self.corner_px * across, sign_y * self.corner_px * along, 0, 0)


def draw_paths(rng: np.random.Generator, radius_px: float, side: int, n_steps: int) -> Paths:
    """Paths for a patch of this radius in a picture of `side` pixels."""

    def length_px() -> float:
        """Of a path over the whole clip, at one speed."""
        return float(rng.uniform(*SPEED_PX)) * n_steps

    orbit_turn = float(rng.uniform(*ORBIT_TURN))
    near = side / 16
    around = ((-near, near), (-near, near), (0, 2 * np.pi), (0, 0))
    return Paths(
        base=Placed(*(float(rng.uniform(low, high)) for low, high in around)),
        travel_px=(length_px(), length_px()),
        turn=TURN_SPEED * length_px() / radius_px,
        growth=float(rng.uniform(*GROWTH)),
        orbit_px=length_px() / orbit_turn,
        orbit_turn=orbit_turn,
        orbit_angle=float(rng.uniform(0, 2 * np.pi)),
        corner_px=length_px() / 2,
        corner_signs=(int(rng.choice((-1, 1))), int(rng.choice((-1, 1)))),
        frozen=tuple((rng.integers(n_steps + 1, size=N_PAIRS) / n_steps).tolist()),
    )


def matrix(placed: Placed, side: int) -> F64:
    """[3, 3]: (x, y, 1) on the patch to (x, y, 1) in a picture of `side` pixels."""
    middle = (side - 1) / 2
    cos, sin = np.cos(placed.angle), np.sin(placed.angle)
    size = np.exp(placed.log_size)
    return np.array(
        [
            [size * cos, -size * sin, middle + placed.dx_px],
            [size * sin, size * cos, middle + placed.dy_px],
            [0, 0, 1],
        ]
    )
