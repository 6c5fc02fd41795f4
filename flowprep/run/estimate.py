"""What a run will cost: bytes from the codec table, time from a few pairs of the source."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np

from flowprep.config import Settings
from flowprep.decode.base import get_decoder
from flowprep.decode.geometry import resize, to_gray
from flowprep.errors import ClipError
from flowprep.flow.base import get_engine
from flowprep.records import I64, Clip, Media
from flowprep.run.jobs import rows_with_clips
from flowprep.run.prepare import Work
from flowprep.run.stages import output_size
from flowprep.run.workplace import Workplace
from flowprep.storage import Place, join

BYTES_PER_PIXEL = {
    "x264": 0.058,
    "x264-fast": 0.070,
    "ffv1": 0.67,
    "jpeg": 0.30,
    "x264-flow": 0.042,
    "x264-flow-fast": 0.043,
    "ffv1-flow": 0.072,
    "jpeg-flow": 0.086,
    "ffv1-flow16": 0.30,
}
"""Of a frame (RGB) or of its flow, per pixel stored: the means in docs/codecs.md."""
PROBE_CLIPS = 3
PROBE_PAIRS = 2


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The cost of the shards that are left."""

    n_bytes: int
    flow_s: float  # seconds of one worker in the engine; 0 when nothing could be tried
    n_pairs_tried: int


def pixel_bytes(settings: Settings) -> float:
    """Bytes per stored pixel, RGB and flow together."""
    names = (settings.rgb_codec, settings.flow_codec)
    return sum(BYTES_PER_PIXEL[name] for name in names)


def planned_bytes(work: Work) -> int:
    """Bytes of the tars that are left to make, about."""
    places, pixels = _todo(work)
    return int((pixels * work.plan.n_frames[places]).sum() * pixel_bytes(work.settings))


def estimate(work: Work, workplace: Workplace) -> Estimate:
    """Try the engine on a few pairs of the source where the workers run, and scale up."""
    todo, pixels_each = _todo(work)
    total = int((pixels_each * (work.plan.n_frames[todo] - 1)).sum())
    step = max(1, len(todo) // PROBE_CLIPS)
    tried = todo[:0] if work.settings.style else todo[::step][:PROBE_CLIPS]
    _, found = rows_with_clips(work, tried)
    some = [(clip, video.media) for video, clip in found if video and video.media and clip]
    seconds, pixels, pairs = workplace.call(partial(_try, work.source.root, work.settings, some))
    return Estimate(
        n_bytes=planned_bytes(work),
        flow_s=total * seconds / pixels if pixels else 0.0,
        n_pairs_tried=pairs,
    )


def _try(
    root: Place, settings: Settings, clips: list[tuple[Clip, Media]]
) -> tuple[float, int, int]:
    """(seconds in the engine, pixels, pairs) of the first pairs of each clip."""
    seconds, pixels, pairs = 0.0, 0, 0
    for clip, media in clips:
        gray = _first_frames(root, settings, clip, media)
        if len(gray) < 2:
            continue
        engine = get_engine(settings.engine, **settings.engine_params)
        started = time.perf_counter()
        engine.compute(gray)
        seconds += time.perf_counter() - started
        pixels += gray[1:].size
        pairs += len(gray) - 1
    return seconds, pixels, pairs


def _todo(work: Work) -> tuple[I64, I64]:
    """Where the rows of clips to make are in the plan, and the pixels of a frame of each."""
    places = work.todo_places
    places = places[(work.plan.n_frames[places] > 1) & (work.video_places[places] >= 0)]
    firsts, kinds = work.videos.alike("width", "height", "sar")
    pixels = np.array([_pixels(work.videos[i].media, work.settings) for i in firsts], np.int64)
    return places, pixels[kinds[work.video_places[places]]]


def _pixels(media: Media | None, settings: Settings) -> int:
    """Of a stored frame; 0 when it will not be made."""
    if media is None:
        return 0
    try:
        width, height = output_size(media, settings)
    except ClipError:
        return 0
    return width * height


def _first_frames(root: Place, settings: Settings, clip: Clip, media: Media) -> np.ndarray:
    path, index = join(root, clip.path), clip.source_index[: PROBE_PAIRS + 1]
    try:
        size = output_size(media, settings)
        frames = list(islice(get_decoder().frames(str(path), media, index), len(index)))
    except ClipError:
        frames = []
    small = [to_gray(resize(frame, *size, settings.resize)) for frame in frames]
    return np.stack(small) if small else np.empty((0, 0, 0), np.uint8)
