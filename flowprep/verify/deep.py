"""Every sample decoded and held against its json and its row of the index."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import numpy as np

from flowprep.codec.base import get_codec
from flowprep.records import Finding
from flowprep.shard.index import Mark
from flowprep.shard.layout import Layout
from flowprep.shard.reader import (
    Sample,
    check_coding,
    damaged_samples,
    flow_px,
    iter_samples,
    read_at,
)
from flowprep.shard.schema import SampleInfo, SampleRow, member_suffixes
from flowprep.storage import Place, oddity

BOTH = {f.name for f in fields(SampleInfo)} & {f.name for f in fields(SampleRow)}
COMPARED = sorted(BOTH - {"label", "label_index"})
"""What a sample's json and its row of the index both tell, beside the label."""
MEAN_TOLERANCE_PX = 0.25
"""Most that a lossy codec may move the mean flow of a clip."""


def check_samples(layout: Layout, mark: Mark, classes: list[str]) -> list[Finding]:
    """Decode all samples of one shard."""
    path = layout.tar(mark.shard)
    if not mark.samples or oddity(path):
        return []
    rows = {row.key: row for row in mark.samples}
    findings = []
    try:
        for sample in iter_samples(path):
            row = rows.pop(sample.key, None)
            problems = _problems(path, sample, row, classes)
            findings += [_finding(mark, path, sample.key, m) for m in problems]
        for row in damaged_samples(path, mark.samples):
            findings.append(_finding(mark, path, row.key, "is not what the commit mark says"))
    except (ValueError, OSError) as error:
        findings.append(_finding(mark, path, "", str(error)))
    return findings + [_finding(mark, path, key, "is not in the tar") for key in rows]


def _finding(mark: Mark, path: Place, key: str, message: str) -> Finding:
    return Finding(code="sample", file=path.name, shard=mark.shard, key=key, message=message)


def _problems(
    path: Place, sample: Sample, row: SampleRow | None, classes: list[str]
) -> Iterator[str]:
    if row is None:
        yield "is in the tar, but not in the commit mark"
        return
    try:
        info = sample.info
    except (ValueError, KeyError, RecursionError) as error:
        yield f"json: {error}"
        return
    if read_at(path, row) != sample:
        yield "does not lie where the index says"
    yield from _row_problems(info, row)
    yield from _label_problems(sample, info, row, classes)
    yield from _metadata_problems(sample, info)
    yield from _guarded("RGB", _rgb_problems(sample, info))
    yield from _guarded("flow", _flow_problems(sample, info))


def _guarded(what: str, problems: Iterator[str]) -> Iterator[str]:
    try:
        yield from problems
    except Exception as error:  # noqa: BLE001 - forged bytes make decoders raise anything
        yield f"{what} does not decode: {type(error).__name__}: {error}"


def _row_problems(info: SampleInfo, row: SampleRow) -> Iterator[str]:
    for name in COMPARED:
        if getattr(info, name) != getattr(row, name):
            yield f"{name} is {getattr(info, name)!r}, the index says {getattr(row, name)!r}"
    if [row.start_s, row.end_s] != [*info.pts_s[:1], *info.pts_s[-1:]]:
        yield "the index has other times"


def _label_problems(
    sample: Sample, info: SampleInfo, row: SampleRow, classes: list[str]
) -> Iterator[str]:
    told, known = (info.label, info.label_index), (row.tar_label, row.tar_label_index)
    if told != known:
        yield f"label is {told}, the index says that the tar has {known}"
    for label, index in {told, (row.label, row.label_index)}:
        if label and (index < 0 or classes[index : index + 1] != [label]):
            yield f"label {label!r} is not class {index}"
        if not label and index != -1:
            yield f"label_index is {index} without a label"
    if info.label_index >= 0 and sample.members.get("cls") != str(info.label_index).encode():
        yield f"cls is {sample.members.get('cls')!r}, {info.label_index} expected"


def _metadata_problems(sample: Sample, info: SampleInfo) -> Iterator[str]:
    if list(sample.members) != member_suffixes(info):
        yield f"members {list(sample.members)}, {member_suffixes(info)} expected"
    if info.n_flows != info.n_frames - 1 or info.n_frames < 2:
        yield f"{info.n_frames} frames and {info.n_flows} flows"
    if not len(info.pts_s) == len(info.source_index) == info.n_frames:
        times, indices = len(info.pts_s), len(info.source_index)
        yield f"{times} times and {indices} indices of {info.n_frames} frames"
    if min(np.diff(info.source_index), default=1) <= 0:
        yield "a frame is its successor's copy: source_index does not ascend"
    if min(np.diff(info.pts_s), default=1) < 0:
        yield "pts_s descends"


def _rgb_problems(sample: Sample, info: SampleInfo) -> Iterator[str]:
    frames = get_codec(info.rgb_codec, ["rgb"]).read(sample.members[info.rgb_member])
    expected = (info.n_frames, info.height, info.width, 3)
    if frames.shape != expected:
        yield f"RGB is {list(frames.shape)}, {list(expected)} expected"


def _flow_problems(sample: Sample, info: SampleInfo) -> Iterator[str]:
    codec = get_codec(info.flow_codec, ["flow8", "flow16"])
    codes = codec.read(sample.members[info.flow_member])
    expected = (info.n_flows, 2 * info.height, info.width)
    if codes.shape != expected:
        yield f"flow is {list(codes.shape)}, {list(expected)} expected"
        return
    try:
        check_coding(info)
    except ValueError as error:
        yield str(error)
        return
    mean_px = _mean_px(info, codes)
    if (
        info.flow_max_px <= info.flow_bound_px
        and abs(mean_px - info.flow_mean_px) > MEAN_TOLERANCE_PX
    ):
        yield f"mean flow decodes to {mean_px:.3f} px, {info.flow_mean_px:.3f} stated"


def _mean_px(info: SampleInfo, codes: np.ndarray) -> float:
    flow = flow_px(info, codes)
    return float(np.hypot(flow[:, 0], flow[:, 1]).mean(dtype=np.float64))
