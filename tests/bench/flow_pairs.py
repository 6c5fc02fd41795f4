"""The named pairs of real frames on which TV-L1 engines are compared: flow_pairs.json.

    python tests/bench/flow_pairs.py     # choose them again from ../shared/videos

A pair is a frame of a video and the next one. It moves when its flow at 340x256 is at least
0.5 px at the median pixel; some near-static pairs are kept apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import cv2
import machine
import numpy as np

from flowprep.decode.base import get_decoder
from flowprep.flow.base import get_engine

LIST = Path(__file__).with_name("flow_pairs.json")
N_PER_VIDEO = {  # at most: some of them hardly move
    "arm_wrestling.mp4": 18,
    "v_GGSY1Qvo990.mp4": 18,
    "v_ZNVhz7ctTq0.mp4": 18,
    "mmaction2_test.avi": 12,
    "nasa_13013.mp4": 12,
    "h264_10bits.mp4": 4,
    "av1_video.mkv": 4,
}
N_STILL_PER_VIDEO = 2
MOVING_PX = 0.5
SIZES = {"340x256": (340, 256), "native": None}


@dataclass(frozen=True)
class Pair:
    video: str
    index: int  # of the first frame
    median_px: float  # |uv| at 340x256

    @property
    def moves(self) -> bool:
        return self.median_px >= MOVING_PX


def load_list() -> list[Pair]:
    return [Pair(**row) for row in json.loads(LIST.read_text())]


def frames(pair: Pair, size: tuple[int, int] | None) -> np.ndarray:
    """Gray uint8 [2, H, W]; `size` is (width, height), None for the video's own."""
    gray = [_gray(frame) for frame in _decoded(pair.video)[pair.index : pair.index + 2]]
    return np.stack([_resized(frame, size) for frame in gray])


@cache
def _decoded(video: str) -> list[np.ndarray]:
    decoder, path = get_decoder("pyav"), str(machine.SHARED_VIDEOS / video)
    media = decoder.probe(path)
    return list(decoder.frames(path, media, np.arange(len(media.pts_s))))


def _gray(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)


def _resized(gray: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    if size is None or size == gray.shape[::-1]:
        return gray
    shrinks = size[0] < gray.shape[1]
    return cv2.resize(gray, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _choose(video: str, n_moving: int) -> Iterator[Pair]:
    """Evenly spaced pairs of distinct frames: those that move, and a few that hardly do."""
    engine = get_engine("cpu")
    found = []
    n = len(_decoded(video)) - 1
    for index in np.unique(np.linspace(0, n - 1, 6 * n_moving).astype(int)).tolist():
        gray = frames(Pair(video, index, 0), SIZES["340x256"])
        if (gray[0] != gray[1]).any():
            median_px = float(np.median(np.hypot(*engine.compute(gray)[0])))
            found.append(Pair(video, index, round(median_px, 3)))
    yield from _spread([pair for pair in found if pair.moves], n_moving)
    yield from _spread([pair for pair in found if not pair.moves], N_STILL_PER_VIDEO)


def _spread(pairs: list[Pair], n: int) -> list[Pair]:
    chosen = np.unique(np.linspace(0, len(pairs) - 1, min(n, len(pairs))).round().astype(int))
    return [pairs[k] for k in chosen]


def main() -> None:
    pairs = [pair for video, n in N_PER_VIDEO.items() for pair in _choose(video, n)]
    LIST.write_text("[\n" + ",\n".join(json.dumps(asdict(pair)) for pair in pairs) + "\n]\n")
    moving = [pair for pair in pairs if pair.moves]
    print(f"{len(moving)} pairs that move, {len(pairs) - len(moving)} near-static")


if __name__ == "__main__":
    main()
