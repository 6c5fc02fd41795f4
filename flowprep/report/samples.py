"""Samples as pictures for a page: an overview of each clip, and a sheet of frames that plays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice

import numpy as np

from flowprep.processes import usable_cores
from flowprep.records import F32, U8
from flowprep.report.clip import Clip, open_clip
from flowprep.report.color import flow_to_rgb
from flowprep.report.dataset import Dataset
from flowprep.report.picture import resized
from flowprep.shard.layout import Layout
from flowprep.shard.schema import SampleInfo, SampleRow

MAX_SAMPLES = 60
PAGE_BYTES, PAGE_FRAMES = 13 << 20, 600
"""All pictures of a page, before base64 makes them a third larger; all frames that play."""
N_PLAYED, LEAST_PLAYED, N_OVERVIEW = 32, 8, 8
PLAYED_S = 2.5
"""A longer clip plays about so much of its middle."""
SIDE_PX, BLOCK = 240, 16  # of a picture; of the blocks that JPEG codes
GAP, GAP_LEVEL = 4, 96  # gray between the pictures of an overview
QUALITIES = (78, 65, 50, 35, 20, 10, 4)
LEAST_LONGEST_PX, LONGEST_PERCENTILE = 0.5, 99.8
"""Where nothing moves, noise does not get the full colours; nor does one odd vector set them."""
BLACK_LEVEL, BLACK_SHARE = 32, 0.98
"""A frame is black when this share of its pixels is below this level in every channel."""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """`n` pictures beside each other above as many of flow, each at the top left of its cell."""

    jpeg: bytes
    n: int
    height: int  # of a picture
    width: int
    cell_height: int
    cell_width: int


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What is shown of a clip. Frames are numbered from 0 within it."""

    info: SampleInfo
    played: Sheet
    played_frames: range
    interval_s: float  # between the frames that play
    overview: Sheet
    overview_frames: list[int]
    longest_px: float  # what has the full colour
    n_black: int  # of the frames shown
    n_seen: int


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A chosen sample: its picture, or why there is none."""

    shard: str
    row: SampleRow
    picture: Picture | None = None
    problem: str = ""


def choose(n_rows: int, n: int, seed: int, chosen: Sequence[int]) -> list[int]:
    """Places of the samples to show: the chosen ones, then `n` others by chance."""
    n_drawn = min(n_rows, n + len(chosen))
    drawn = np.random.default_rng(seed).choice(n_rows, n_drawn, replace=False).tolist()
    others = [place for place in drawn if place not in chosen]
    return [*dict.fromkeys(chosen), *others[:n]]


def draw_all(dataset: Dataset, places: Sequence[int]) -> list[Shown]:
    """Each chosen sample, in order; what cannot be read says why."""
    n = max(1, len(places))
    n_played = min(N_PLAYED, max(LEAST_PLAYED, PAGE_FRAMES // n))
    draw_one = partial(_shown, dataset.layout, n_played, PAGE_BYTES // n)
    with ThreadPoolExecutor(usable_cores()) as pool:
        return list(pool.map(draw_one, dataset.index.rows(places)))


def _shown(layout: Layout, n_played: int, n_bytes: int, placed: tuple[str, SampleRow]) -> Shown:
    shard, row = placed
    try:
        picture = draw(open_clip(layout, shard, row), n_played, n_bytes)
    except (ValueError, OSError) as error:
        return Shown(shard=shard, row=row, problem=str(error))
    return Shown(shard=shard, row=row, picture=picture)


def draw(clip: Clip, n_played: int = N_PLAYED, n_bytes: int = PAGE_BYTES) -> Picture:
    """Raises ValueError where the clip does not decode."""
    played, overview = played_frames(clip, n_played), overview_frames(clip.info.n_flows)
    size = fitting(clip.info.height, clip.info.width)
    shrink = partial(_shrunk, size=size)
    frames = np.stack([*map(shrink, _taken(clip.frames, played, overview))])
    flows = np.stack([*map(shrink, _taken(_planes_last(clip), played, overview))])
    uv = flows.transpose(0, 3, 1, 2)
    longest_px = longest_of(uv)
    colors = np.stack([flow_to_rgb(flow, longest_px) for flow in uv])
    n, black = len(played), are_black(frames)
    return Picture(
        info=clip.info,
        played=make_sheet(frames[:n], colors[:n], n_bytes * 3 // 4),
        played_frames=played,
        interval_s=clip.step_s * played.step,
        overview=make_sheet(frames[n:], colors[n:], n_bytes // 4, GAP),
        overview_frames=overview,
        longest_px=longest_px,
        n_black=sum(dict(zip([*played, *overview], black, strict=True)).values()),
        n_seen=len({*played, *overview}),
    )


def played_frames(clip: Clip, n_played: int) -> range:
    """Evenly spaced frames of about PLAYED_S of the middle; each has a flow."""
    n_flows = clip.info.n_flows
    n_spanned = min(n_flows, max(n_played, round(PLAYED_S / max(clip.step_s, 1e-3))))
    first = (n_flows - n_spanned) // 2
    return range(first, first + n_spanned, -(-n_spanned // n_played))


def overview_frames(n_flows: int) -> list[int]:
    """At most N_OVERVIEW frames, from the first to the last that has a flow."""
    spread = np.linspace(0, n_flows - 1, min(N_OVERVIEW, n_flows))
    return [round(place) for place in spread.tolist()]


def fitting(height: int, width: int) -> tuple[int, int]:
    """(height, width) of the picture that fits into SIDE_PX; small ones keep their size."""
    scale = min(1.0, SIDE_PX / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


Read = Callable[[int, int], Iterator[np.ndarray]]


def _taken(read: Read, played: range, overview: Iterable[int]) -> Iterator[np.ndarray]:
    """The pictures of these numbers; those that are near are decoded in one go."""
    near = islice(read(played[0], played[-1] + 1), 0, None, played.step)
    return chain(near, chain.from_iterable(read(number, number + 1) for number in overview))


def _planes_last(clip: Clip) -> Read:
    """Flow as float32 [H, W, 2], as OpenCV wants it."""

    def read(start: int, stop: int) -> Iterator[np.ndarray]:
        return (np.ascontiguousarray(uv.transpose(1, 2, 0)) for uv in clip.flows(start, stop))

    return read


def _shrunk(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return resized(picture, *size, smooth=True)


def longest_of(flows_T2HW: F32) -> float:
    """Length that nearly all vectors stay below, pixels."""
    lengths = np.hypot(flows_T2HW[:, 0], flows_T2HW[:, 1])
    return max(LEAST_LONGEST_PX, float(np.percentile(lengths, LONGEST_PERCENTILE)))


def are_black(frames_THW3: U8) -> list[bool]:
    """Of each frame whether it is black."""
    dark = (frames_THW3 < BLACK_LEVEL).all(axis=-1).mean(axis=(1, 2))
    return [bool(share >= BLACK_SHARE) for share in dark]


def make_sheet(frames_THW3: U8, colors_THW3: U8, n_bytes: int, gap: int = 0) -> Sheet:
    """A JPEG of about `n_bytes` at most, the best that is.

    Without a gap cells are whole blocks, so that no picture has a trace of its neighbour.
    """
    n, height, width = frames_THW3.shape[:3]
    sides = (height, width)
    cell = [side + gap if gap else -(-side // BLOCK) * BLOCK for side in sides]
    edges = ((0, 0), *((0, whole - side) for whole, side in zip(cell, sides, strict=True)), (0, 0))
    both = (frames_THW3, colors_THW3)
    if gap:
        padded = [np.pad(part, edges, constant_values=GAP_LEVEL) for part in both]
    else:
        padded = [np.pad(part, edges, mode="edge") for part in both]
    return Sheet(
        jpeg=_jpeg(np.vstack([np.hstack(list(part)) for part in padded]), n_bytes),
        n=n,
        height=height,
        width=width,
        cell_height=cell[0],
        cell_width=cell[1],
    )


def _jpeg(picture_HW3: U8, n_bytes: int) -> bytes:
    import cv2

    sampling = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
    data = b""
    for quality in QUALITIES:
        options = [cv2.IMWRITE_JPEG_QUALITY, quality, *sampling]
        data = bytes(cv2.imencode(".jpg", picture_HW3[..., ::-1], options)[1])
        if len(data) <= n_bytes:
            break
    return data
