"""Made-up samples, for dry runs: a texture that moves as its class says."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pyarrow as pa

from flowprep.records import U8, Codes
from train.data.reader import Span, Stretch
from train.data.splits import TEST, TRAIN, VAL
from train.data.table import Table

MOTIONS_PX = {"right": (3, 0), "left": (-3, 0), "down": (0, 3), "up": (0, -3)}  # dx, dy
VIDEOS_PER_CLASS = 40
SPLIT_OF_TEN = [TRAIN] * 8 + [VAL, TEST]
N_FRAMES, HEIGHT, WIDTH = 96, 256, 340
ZERO_CODE, PX_PER_CODE = 128.0, 20 / 127
NOISE_CODES = 8  # of flow, either way


def synthetic_table() -> Table:
    """A class per motion, a sample per video, four fifths of them for training."""
    n = len(MOTIONS_PX) * VIDEOS_PER_CLASS
    numbers = np.arange(n)
    names = [f"{m}/{i}" for i, m in product(range(VIDEOS_PER_CLASS), MOTIONS_PX)]
    return Table(
        tars=[],
        videos=pa.array(names),
        classes=list(MOTIONS_PX),
        key_N=pa.array(names),
        tar_N=np.zeros(n, np.int64),
        video_N=numbers,
        label_N=numbers % len(MOTIONS_PX),
        split_N=np.array(SPLIT_OF_TEN)[numbers // len(MOTIONS_PX) % len(SPLIT_OF_TEN)],
        frames_N=np.full(n, N_FRAMES),
        height_N=np.full(n, HEIGHT),
        width_N=np.full(n, WIDTH),
        places_N32=np.zeros((n, 3, 2), np.int64),
        extraction={},
        fingerprint="synthetic",
        synthetic=True,
    )


class SyntheticReader:
    """Renders what a sample would hold, the same each time."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._motions = list(MOTIONS_PX.values())

    def read(self, row: int, rgb: Span | None, flow: Span | None) -> Stretch:
        """See Reader."""
        motion = self._motions[int(self._table.label_N[row])]
        seed = int(self._table.video_N[row])
        return Stretch(
            None if rgb is None else _frames(motion, rgb, seed),
            None if flow is None else _codes(motion, flow, seed),
            ZERO_CODE,
            PX_PER_CODE,
        )


def _frames(motion: tuple[int, int], span: Span, seed: int) -> Iterator[U8]:
    import cv2

    noise = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    blurred = cv2.GaussianBlur(noise, (0, 0), 2, borderType=cv2.BORDER_REFLECT)
    texture = cv2.normalize(blurred, None, 0, 255, cv2.NORM_MINMAX)
    dx, dy = motion
    for t in range(*span):
        yield np.roll(texture, (t * dy, t * dx), (0, 1))


def _codes(motion: tuple[int, int], span: Span, seed: int) -> Iterator[Codes]:
    """The motion, and in every picture the same noise: it is for speed, not for realism."""
    noise = np.random.default_rng(seed).integers(
        -NOISE_CODES, NOISE_CODES + 1, (2, HEIGHT, WIDTH), np.int8
    )
    dxy = np.rint(ZERO_CODE + np.array(motion) / PX_PER_CODE).astype(np.int64)
    codes = (dxy.reshape(2, 1, 1) + noise).astype(np.uint8).reshape(2 * HEIGHT, WIDTH)
    for _ in range(*span):
        yield codes
