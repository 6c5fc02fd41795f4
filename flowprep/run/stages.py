"""decode -> flow -> encode, as generators over the chunks of a job's clips.

A stage hands on `Chunk`s, and one `Broken` for a clip that cannot be made; the stages after it drop
what they have of that clip.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from flowprep.config import Settings
from flowprep.decode.base import Decoder, Limits, flow_of_source
from flowprep.decode.geometry import resize, target_size, to_gray
from flowprep.decode.opening import check_size
from flowprep.errors import ClipError, DeviceLost, Reason, StoreError, reason_of
from flowprep.flow.base import Engine
from flowprep.flow.distinct import compute_to_store, identical_pairs
from flowprep.quantize import Quantizer, make_quantizer
from flowprep.records import U8, Clip, CodedFlow, FlowField, Frames, Media
from flowprep.run.overlap import StageClock
from flowprep.storage import Place, join, stamp

CHUNK_BYTES = 16 << 20
MAX_CHUNK_FRAMES = 16


@dataclass(frozen=True, kw_only=True)
class ClipTask:
    """A clip to make, and the file it comes from as it was probed."""

    clip: Clip
    media: Media | None
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Successive frames of a clip; `flow` holds the pairs that end in them."""

    task: ClipTask
    frames: Frames
    gray: U8
    is_first: bool
    is_last: bool
    corrupt_frames: int = 0
    identical: int = 0
    flow: FlowField | CodedFlow | None = None


@dataclass(frozen=True, kw_only=True)
class Broken:
    """The clip ends here, without a sample."""

    task: ClipTask
    stage: str
    error: ClipError


Event = Chunk | Broken


def decode_stage(
    tasks: Iterable[ClipTask], root: Place, settings: Settings, decoder: Decoder, clock: StageClock
) -> Iterator[Event]:
    """Every clip's frames, resized, in chunks."""
    for task in tasks:
        try:
            if task.clip.reason or task.media is None:
                raise ClipError(task.clip.reason, task.clip.message)  # type: ignore[arg-type]
            check_unchanged(join(root, task.clip.path), task)
            yield from _clip_chunks(task, task.media, root, settings, decoder, clock)
        except StoreError:  # of every clip, not of this one
            raise
        except ClipError as error:
            stage = "probe" if task.clip.reason else "decode"
            yield Broken(task=task, stage=stage, error=error.below(root))
        except Exception as error:  # noqa: BLE001 - what a decoder raises costs this clip only
            reason = reason_of(error, "decode-error")
            broken = ClipError(reason, f"{type(error).__name__}: {error}")
            yield Broken(task=task, stage="decode", error=broken.below(root))


def check_unchanged(path: Place, task: ClipTask) -> None:
    """Raise ClipError unless the file has the size and time it was probed with."""
    try:
        found = stamp(path)
    except OSError as error:
        raise ClipError("missing", f"gone since it was probed: {error.strerror}") from error
    if found != (task.size_bytes, task.mtime_ns):
        raise ClipError("changed", "the file changed since it was probed; run extract again")


def _clip_chunks(
    task: ClipTask,
    media: Media,
    root: Place,
    settings: Settings,
    decoder: Decoder,
    clock: StageClock,
) -> Iterator[Chunk]:
    size = output_size(media, settings)
    index = task.clip.source_index
    per_chunk = chunk_length(*size)
    path = str(join(root, task.clip.path))
    decoded = clock.timed("decode", decoder.frames(path, media, index))
    codes = flow_of_source(decoder, path, media, index)
    brought = clock.timed("decode", codes) if codes else None
    quantizer = make_quantizer(settings.flow_map, settings.bound_px)
    for start in range(0, len(index), per_chunk):
        part = index[start : start + per_chunk]
        rgb = np.empty((len(part), size[1], size[0], 3), np.uint8)
        gray = np.empty(rgb.shape[:3], np.uint8)
        n_got = 0
        for frame in islice(decoded, len(part)):
            with clock.stage("resize"):
                rgb[n_got] = resize(frame, *size, settings.resize)
                gray[n_got] = to_gray(rgb[n_got])
            n_got += 1
        if n_got < len(part):
            message = f"the decoder gave {start + n_got} of {len(index)} frames"
            raise ClipError("frames-missing", message)
        yield Chunk(
            task=task,
            frames=Frames(rgb, media.pts_s[part], part),
            gray=gray,
            is_first=start == 0,
            is_last=start + per_chunk >= len(index),
            corrupt_frames=getattr(decoder, "corrupt_frames", 0),
            flow=_read(brought, len(part) - (start == 0), size, quantizer) if brought else None,
        )


def _read(
    codes: Iterator[U8], n_pairs: int, size: tuple[int, int], quantizer: Quantizer
) -> CodedFlow:
    found = list(islice(codes, n_pairs))
    return quantizer.read(np.array(found, np.uint8).reshape(n_pairs, 2 * size[1], size[0]))


def output_size(media: Media, settings: Settings) -> tuple[int, int]:
    """(width, height) that a video is stored at.

    Raises ClipError `too-large` where the limits of a source are passed: its long side grows with
    the short one, however narrow the picture.
    """
    sar = media.sar if settings.apply_sar else None
    size = target_size(media.width, media.height, settings.short_side or None, sar)
    check_size("a frame of the sample", *size, Limits())
    return size


def chunk_length(width: int, height: int) -> int:
    """Frames in a chunk: bounded memory whatever their size."""
    return int(np.clip(CHUNK_BYTES // (width * height * 3), 1, MAX_CHUNK_FRAMES))


def flow_stage(
    events: Iterable[Event], engine: Engine, quantizer: Quantizer, clock: StageClock
) -> Iterator[Event]:
    """Every chunk with its flow, in order; computed in batches as large as the engine likes, if it
    did not come with its frames.

    It is quantised where the engine can do that, else left to the next stage. What an engine raises
    costs the clip it is about. Raises DeviceLost, which ends the worker.
    """
    broken: ClipTask | None = None
    for batch in _batches(_with_last_frames(events), engine):
        with clock.stage("flow"):
            results = _flows(batch, engine, quantizer)
        for result in results:
            if result.task is broken:
                continue
            if isinstance(result, Broken):
                broken = result.task
            yield result


Waiting = tuple[Event, U8 | None]
"""An event, and the gray frames of a chunk with the one before them."""


def _with_last_frames(events: Iterable[Event]) -> Iterator[Waiting]:
    """The last frame of a chunk is carried to the next of the clip."""
    last: U8 | None = None
    for event in events:
        if isinstance(event, Broken) or event.flow is not None:
            yield event, None
            continue
        gray = event.gray if event.is_first or last is None else _after(last, event.gray)
        last = event.gray[-1]
        yield event, gray


def _batches(waiting: Iterable[Waiting], engine: Engine) -> Iterator[list[Waiting]]:
    """Chunks of one frame size until they have the pairs that the engine likes at a time."""
    batch: list[Waiting] = []
    size_HW: tuple[int, ...] = ()
    n_pairs = n_wanted = 0
    for event, gray in waiting:
        if gray is not None and gray.shape[1:] != size_HW:
            if batch:
                yield batch
            batch, n_pairs, size_HW = [], 0, gray.shape[1:]
            n_wanted = engine.batch_pairs((gray.shape[1], gray.shape[2]))
        batch.append((event, gray))
        n_pairs += len(gray) - 1 if gray is not None else 0
        if n_pairs >= n_wanted:
            yield batch
            batch, n_pairs = [], 0
    if batch:
        yield batch


def _after(last: U8, gray: U8) -> U8:
    return np.concatenate([last[None], gray])


def _flows(batch: list[Waiting], engine: Engine, quantizer: Quantizer) -> list[Event]:
    """All in one call; when that fails, each chunk by itself, to find the one that is at fault."""
    chunks = [(event, gray) for event, gray in batch if gray is not None]
    if not chunks:
        return [event for event, _ in batch]
    try:
        flows = compute_to_store(engine, [gray for _, gray in chunks], quantizer)
    except DeviceLost:
        raise
    except Exception:  # noqa: BLE001 - told by the chunk that raises it again
        return [
            event if gray is None else _flow_alone(event, gray, engine, quantizer)
            for event, gray in batch
        ]
    computed = iter(flows)
    return [
        event if gray is None else _with_flow(event, gray, next(computed), engine)
        for event, gray in batch
    ]


def _flow_alone(event: Event, gray: U8, engine: Engine, quantizer: Quantizer) -> Event:
    try:
        flow = compute_to_store(engine, [gray], quantizer)[0]
    except DeviceLost:
        raise
    except Exception as error:  # noqa: BLE001 - whatever an engine raises costs this clip only
        reason = reason_of(error, "flow-error")
        return _flow_error(event, engine, f"{type(error).__name__}: {error}", reason)
    return _with_flow(event, gray, flow, engine)


def _with_flow(event: Event, gray: U8, flow: FlowField | CodedFlow, engine: Engine) -> Event:
    assert isinstance(event, Chunk)
    if not flow.is_finite():
        message = "ValueError: the engine gave values that are not finite"
        return _flow_error(event, engine, message)
    same = int(identical_pairs(gray).sum())
    return replace(event, flow=flow, identical=same)


def _flow_error(
    event: Event, engine: Engine, message: str, reason: Reason = "flow-error"
) -> Broken:
    error = ClipError(reason, f"{engine.name}: {message}")
    return Broken(task=event.task, stage="flow", error=error)
