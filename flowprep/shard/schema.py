"""The sample: member names, the flat json, and the row of the index."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from flowprep.config import SCHEMA_VERSION

T = TypeVar("T")
"""The folder beside the tars."""


@dataclass(frozen=True, kw_only=True)
class SampleInfo:
    """A sample's json: flat, every field always there, types never change."""

    key: str
    path: str
    clip_number: int
    split: str
    label: str  # "" = none
    label_index: int  # -1 = none
    n_frames: int
    n_flows: int
    height: int
    width: int
    pts_s: list[float]
    source_index: list[int]
    source_size_bytes: int
    source_container: str
    source_codec: str
    source_pix_fmt: str
    source_width: int
    source_height: int
    source_rotation_deg: int
    source_sar: str
    source_transfer: str
    source_n_frames: int
    source_duration_s: float
    source_corrupt_frames: int
    fps_limit: float  # 0 = native
    stride: int
    resize: str
    decoder_build: str
    engine: str
    engine_params: str  # JSON text
    engine_build: str
    flow_codec: str
    flow_codec_params: str
    flow_member: str
    flow_map: str
    flow_bound_px: float
    flow_zero_code: float
    flow_px_per_code: float
    flow_saturated_share: float
    flow_mean_px: float
    flow_max_px: float
    identical_pairs: int
    rgb_codec: str
    rgb_codec_params: str
    rgb_member: str
    flowprep_version: str
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> bytes:
        """UTF-8 JSON, keys sorted."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False).encode()


def parse_info(data: bytes) -> SampleInfo:
    """A SampleInfo from its json. Raises ValueError naming the field that is wrong."""
    try:
        return typed(SampleInfo, json.loads(data))
    except RecursionError as error:
        raise ValueError("json is nested too deeply") from error


def typed(kind: type[T], values: Any) -> T:
    """A record of ours from what JSON holds. Raises ValueError naming the field that is wrong."""
    if not isinstance(values, dict):
        raise ValueError(f"{kind.__name__} is not an object")
    expected = {f.name: str(f.type) for f in fields(kind)}  # type: ignore[arg-type]
    if odd := sorted(set(values) ^ set(expected)):
        raise ValueError(f"json fields missing or unknown: {', '.join(odd)}")
    for name, want in expected.items():
        if not _is_a(values[name], want):
            raise ValueError(f"json field {name} = {values[name]!r} is not {want}")
    return kind(**values)


def _is_a(value: Any, kind: str) -> bool:
    if kind.startswith("list["):
        return isinstance(value, list) and all(_is_a(v, kind[5:-1]) for v in value)
    if kind.startswith("dict[str, "):
        return isinstance(value, dict) and all(_is_a(v, kind[10:-1]) for v in value.values())
    if kind == "float":
        return type(value) is float and math.isfinite(value)
    return type(value).__name__ == kind


@dataclass(frozen=True, kw_only=True)
class SampleRow:
    """A sample in a commit mark and in the index. Offsets and sizes are bytes in the tar.

    `sample_offset`..`+sample_size` covers headers, members and padding: the bytes `sha256` is of.
    Member offsets point at the data, behind the tar header; -1 and 0 where there is no such member.
    `label` is what holds; `tar_label*` is what the sample's json and .cls tell, which may be older.
    """

    key: str
    path: str
    clip_number: int
    split: str
    label: str
    label_index: int
    tar_label: str
    tar_label_index: int
    n_frames: int
    n_flows: int
    height: int
    width: int
    start_s: float
    end_s: float
    flow_mean_px: float
    flow_saturated_share: float
    identical_pairs: int
    sample_offset: int
    sample_size: int
    sha256: str
    cls_offset: int
    cls_size: int
    flow_offset: int
    flow_size: int
    json_offset: int
    json_size: int
    rgb_offset: int
    rgb_size: int
    flow_member: str
    rgb_member: str


def member_suffixes(info: SampleInfo) -> list[str]:
    """What follows `KEY.` in the tar, in order."""
    labelled = ["cls"] if info.label_index >= 0 else []
    return [*labelled, info.flow_member, "json", info.rgb_member]
