"""Samples made again from their source, as far as the codec, and held against what is stored."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np

from flowprep import manifest
from flowprep.clips import clips_of
from flowprep.codec.base import GOP, get_codec
from flowprep.config import Settings
from flowprep.decode.base import flow_of_source, get_decoder
from flowprep.decode.geometry import resize, target_size, to_gray
from flowprep.errors import ClipError, FlowprepError
from flowprep.flow.base import Engine, plans_memory, uses_gpu
from flowprep.flow.distinct import compute_distinct
from flowprep.processes import process_pool, usable_cores
from flowprep.quantize import Quantizer, make_quantizer
from flowprep.records import U8, Clip, Finding, Media, Video
from flowprep.shard.layout import Layout
from flowprep.shard.reader import Sample, damaged_samples, read_at
from flowprep.shard.schema import SampleInfo
from flowprep.storage import Place, plain
from flowprep.verify.check import Watch
from flowprep.verify.compare import Comparison, Group, Measured, judged
from flowprep.verify.subjects import Bench, Subject, prepare

GROUP_BYTES = 64 << 20
GPU_WORKERS = 2


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What came of a subject; `measured` is None when it could not be compared."""

    subject: Subject
    measured: Measured | None = None
    problems: list[tuple[str, str]] = field(default_factory=list)  # (code, message)


_ENGINES: dict[str, Engine] = {}
"""Those of this process: they keep compiled code and work space."""


def _engine(bench: Bench) -> Engine:
    name = repr(bench)
    if name not in _ENGINES:
        _ENGINES[name] = bench.make_engine()
    return _ENGINES[name]


def recompute(
    out: Place, n: int, *, seed: int = 0, src: str = "", watch: Watch | None = None
) -> list[Compared]:
    """Make `n` samples again, on all cores, and compare.

    Raises FlowprepError when the settings or the manifest cannot be read, or the engine is not
    live here.
    """
    bench, subjects = prepare(out, n, seed, src)
    n_workers, bench = _shared_out(bench, len(subjects))
    watch = watch or (lambda done, total: None)
    results: dict[str, Compared] = {}
    while left := [s for s in subjects if s.row.key not in results]:
        for result in _until_one_dies(bench, left, n_workers):
            results[result.subject.row.key] = result
            watch(len(results), len(subjects))
    return [results[subject.row.key] for subject in subjects]


def _until_one_dies(bench: Bench, subjects: list[Subject], n_workers: int) -> Iterator[Compared]:
    """As they finish. Of those that a process died on or before, the first are made again, each
    in a process of its own; what they leave is for the next call.
    """
    with process_pool(n_workers) as pool:
        work = {pool.submit(compare, bench, subject): subject for subject in subjects}
        for future in as_completed(work):
            if not isinstance(future.exception(), BrokenProcessPool):
                yield _result(future, work.pop(future))
    for subject in list(work.values())[:n_workers]:
        with process_pool(1) as pool:
            yield _result(pool.submit(compare, bench, subject), subject)


def _result(future: Future[Compared], subject: Subject) -> Compared:
    try:
        return future.result()
    except BrokenProcessPool:
        message = "the process that computed it died"
    except Exception as error:  # noqa: BLE001 - whatever an engine raises costs this sample only
        message = f"{type(error).__name__}: {error}"
    return Compared(subject=subject, problems=[("not-compared", message)])


def _shared_out(bench: Bench, n_subjects: int) -> tuple[int, Bench]:
    """Workers, and what each is given: a core or more, or a share of the first GPU's memory."""
    engine, cores = bench.settings.engine, usable_cores()
    n_workers = max(1, min(GPU_WORKERS if uses_gpu(engine) else cores, n_subjects))
    options = {"gpu_share": 1 / n_workers} if plans_memory(engine) else {}
    bench = replace(bench, threads=max(1, cores // n_workers), engine_options=options)
    bench.make_engine()  # raises what every worker would
    return n_workers, bench


def compare(bench: Bench, subject: Subject) -> Compared:
    """Make one sample again and hold it against what is stored."""
    import cv2

    cv2.setNumThreads(bench.threads)
    problems: list[tuple[str, str]] = []
    try:
        measured = _measure(bench, subject, problems)
    except ClipError as error:
        code = {"missing": "source-missing", "changed": "source-changed"}.get(error.reason)
        problem = (code or "not-compared", error.below(bench.root).message)
        return Compared(subject=subject, problems=[*problems, problem])
    except (ValueError, KeyError, OSError, FlowprepError) as error:
        return Compared(subject=subject, problems=[*problems, ("not-compared", str(error))])
    problems += judged(measured)
    return Compared(subject=subject, measured=measured, problems=problems)


def _measure(bench: Bench, subject: Subject, problems: list[tuple[str, str]]) -> Measured:
    media, clip = source_of(bench, subject)
    sample = stored_sample(bench, subject)
    info, engine = sample.info, _engine(bench)
    problems += [("source-index", message) for message in _other_frames(info, media, clip)]
    problems += [("made-otherwise", m) for m in _other_making(info, bench.settings, engine)]
    with tempfile.TemporaryDirectory(prefix="flowprep-") as folder:
        comparison = Comparison(
            sample=sample,
            info=info,
            rgb_codec=get_codec(info.rgb_codec, ["rgb"]),
            flow_codec=get_codec(info.flow_codec, ["flow8", "flow16"]),
            quantizer=make_quantizer(info.flow_map, info.flow_bound_px),
            folder=Path(folder),
        )
        for group in groups(bench, media, clip, engine):
            comparison.add(group)
        return comparison.finish()


def source_of(bench: Bench, subject: Subject) -> tuple[Media, Clip]:
    """The source, probed again, and the clip that the settings cut from it.

    Raises ClipError `missing` or `changed`.
    """
    if subject.video is None:
        raise ClipError("missing", f"{subject.row.path} is not in the manifest")
    decoder = get_decoder(**bench.settings.decoder, threads=bench.threads)

    def probed(video: Video) -> Video:
        return replace(video, media=decoder.probe(str(bench.root / video.path)))

    now = manifest.current(subject.video, bench.root, probed)
    if now.reason in ("missing", "changed"):
        raise ClipError("missing" if now.reason == "missing" else "changed", now.message)
    now = probed(now)
    clips = {clip.key: clip for clip in clips_of(now, bench.settings)}
    if subject.row.key not in clips or now.media is None:
        raise ClipError("changed", f"{now.path} does not give this clip any more")
    return now.media, clips[subject.row.key]


def stored_sample(bench: Bench, subject: Subject) -> Sample:
    """Raises ValueError when its bytes are damaged."""
    tar = plain(Layout(bench.out).tar(subject.shard))
    if list(damaged_samples(tar, [subject.row])):
        raise ValueError("its bytes are damaged")
    return read_at(tar, subject.row)


def _other_frames(info: SampleInfo, media: Media, clip: Clip) -> Iterator[str]:
    if info.source_index != clip.source_index.tolist():
        yield "source_index tells of other frames than the settings take"
    elif info.pts_s != [round(t, 6) for t in media.pts_s[clip.source_index].tolist()]:
        yield "pts_s tells other times than the source"


def _other_making(info: SampleInfo, settings: Settings, engine: Engine) -> Iterator[str]:
    quantizer = make_quantizer(settings.flow_map, settings.bound_px)
    expected = {
        "engine": engine.name,
        "engine_params": json.dumps(dict(engine.params), sort_keys=True),
        "flow_map": quantizer.name,
        "flow_bound_px": float(quantizer.bound_px),
        "flow_zero_code": float(quantizer.zero_code),
        "flow_px_per_code": float(quantizer.px_per_code),
        "rgb_codec": settings.rgb_codec,
        "flow_codec": settings.flow_codec,
        "fps_limit": settings.fps,
        "stride": settings.stride,
        "resize": settings.resize,
    }
    for name, value in expected.items():
        if getattr(info, name) != value:
            yield f"{name} is {getattr(info, name)!r}, the dataset's settings give {value!r}"


def groups(bench: Bench, media: Media, clip: Clip, engine: Engine) -> Iterator[Group]:
    """The clip decoded and its flow computed, a group of pictures at a time."""
    settings = bench.settings
    sar = media.sar if settings.apply_sar else None
    width, height = target_size(media.width, media.height, settings.short_side or None, sar)
    n_frames = int(np.clip(GROUP_BYTES // (width * height * 3), 2, GOP))
    path = str(bench.root / clip.path)
    decoder = get_decoder(**settings.decoder, threads=bench.threads)
    decoded = decoder.frames(path, media, clip.source_index)
    small = (resize(frame, width, height, settings.resize) for frame in decoded)
    if codes := flow_of_source(decoder, path, media, clip.source_index):
        quantizer = make_quantizer(settings.flow_map, settings.bound_px)
        yield from _brought(quantizer, small, codes, n_frames)
        return
    last: list[U8] = []
    while part := list(islice(small, n_frames)):
        gray = [*last, *(to_gray(frame) for frame in part)]
        last = gray[-1:]
        yield Group(np.stack(part), compute_distinct(engine, np.stack(gray)))


def _brought(
    quantizer: Quantizer, frames: Iterator[U8], codes: Iterator[U8], n_frames: int
) -> Iterator[Group]:
    """The same where the source holds the flow."""
    n_before = 0
    while part := list(islice(frames, n_frames)):
        height, width = part[0].shape[:2]
        pairs = list(islice(codes, len(part) - (n_before == 0)))
        n_before += len(part)
        stacked = np.stack(pairs) if pairs else np.empty((0, 2 * height, width), np.uint8)
        yield Group(np.stack(part), quantizer.decode(stacked))


def findings_of(compared: Iterable[Compared]) -> list[Finding]:
    """As verify reports them."""
    return [
        Finding(
            code=code,
            file=f"{one.subject.shard}.tar",
            shard=one.subject.shard,
            key=one.subject.row.key,
            message=message,
            detail=one.measured.as_dict() if one.measured else {},
        )
        for one in compared
        for code, message in one.problems
    ]
