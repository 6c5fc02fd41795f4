"""What scale.py runs on: files of no content, a manifest that tells what probing would, and commit
marks of shards that nobody made.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from flowprep import manifest
from flowprep.config import Settings
from flowprep.records import Failure, Media
from flowprep.shard.index import Mark
from flowprep.shard.layout import Layout
from flowprep.shard.plan import Plan, PlanRow, read_plan
from flowprep.shard.schema import SampleRow
from flowprep.sources import read_source

SETTINGS = Settings(engine="constant")
CLASSES = 700
ONE_SAMPLE_BYTES = 400_000
FAILED = 500
"""One clip of so many has failed."""
KINDS = [
    *((Fraction(1, 30000), 1001, 0), (Fraction(1, 12800), 512, 0)),
    *((Fraction(1, 90000), 3600, 0), (Fraction(1, 1000), 33, 1)),
]
"""Time base, ticks from frame to frame, and by how many they vary."""


def make_files(folder: Path, n_videos: int) -> None:
    """`class_012/video_0000012.mp4`: sparse files of 1 to 3 MB."""
    n_classes = min(CLASSES, n_videos // 10)
    for number in range(n_classes):
        (folder / f"class_{number:03d}").mkdir(parents=True)
    for i in range(n_videos):
        path = folder / f"class_{i % n_classes:03d}" / f"video_{i:07d}.mp4"
        with path.open("wb") as file:
            os.truncate(file.fileno(), 1_000_000 + i * 7919 % 2_000_000)


def write_manifest(source: Path, layout: Layout) -> None:
    """As probing would leave it: 10 s of 25 or 30 fps for each video, every fourth of varying
    rate, and no two of these alike.
    """
    layout.internal.mkdir(parents=True)
    videos = read_source(str(source)).videos
    probed = (replace(video, media=_media(i)) for i, video in enumerate(videos))
    layout.manifest.write_bytes(manifest.to_bytes(probed))


def _media(number: int) -> Media:
    time_base, step, varies = KINDS[number % len(KINDS)]
    n_frames = int(10 / (step * time_base)) - number % 7
    pts = step * np.arange(n_frames, dtype=np.int64)
    if varies:
        pts += np.random.default_rng(number).integers(0, 2, n_frames)
    return Media(
        container="mov,mp4,m4a,3gp,3g2,mj2",
        codec="h264",
        pix_fmt="yuv420p",
        width=340,
        height=256,
        rotation_deg=0,
        sar=Fraction(1),
        transfer="bt709",
        time_base=time_base,
        pts=pts,
        end_pts=int(pts[-1]) + step,
    )


def write_marks(layout: Layout, n_shards: int) -> int:
    """Commit marks of the first shards of the plan, where there is none yet; returns how many."""
    plan = read_plan(layout.plan)
    labels = layout.classes.read_text().splitlines()
    there, index = set(layout.committed()), {label: i for i, label in enumerate(labels)}
    names = [shard for shard in sorted(plan.shards)[:n_shards] if shard not in there]
    for shard in names:
        layout.mark(shard).write_bytes(_mark(plan, shard, index).to_json())
    return len(there) + len(names)


def _mark(plan: Plan, shard: str, index: dict[str, int]) -> Mark:
    rows = plan.rows(plan.places(shard))
    failed = [row for row in rows if _number(row) % FAILED == 0]
    samples = list(_samples([row for row in rows if row not in failed], index))
    return Mark(
        shard=shard,
        fingerprint=SETTINGS.fingerprint(),
        tar_bytes=ONE_SAMPLE_BYTES * len(samples) + 10240,
        tar_sha256=_sha256(shard),
        idx_sha256=_sha256(shard + "idx"),
        samples=samples,
        failures=[_failure(row) for row in failed],
        versions={"av": "18.1.0", "flowprep": "1", "libavcodec": "62.28.102", "numpy": "2.4.6"},
    )


def _samples(rows: list[PlanRow], index: dict[str, int]) -> Iterator[SampleRow]:
    for place, row in enumerate(rows):
        start = place * ONE_SAMPLE_BYTES
        yield SampleRow(
            key=row.key,
            path=row.path,
            clip_number=0,
            split=row.split,
            label=row.label,
            label_index=index[row.label],
            tar_label=row.label,
            tar_label_index=index[row.label],
            n_frames=row.n_frames,
            n_flows=row.n_frames - 1,
            height=256,
            width=340,
            start_s=0.0,
            end_s=row.n_frames / 25,
            flow_mean_px=_number(row) % 977 / 100,
            flow_saturated_share=_number(row) % 89 / 1e4,
            identical_pairs=_number(row) % 5,
            sample_offset=start,
            sample_size=ONE_SAMPLE_BYTES,
            sha256=_sha256(row.key),
            cls_offset=start + 512,
            cls_size=3,
            flow_offset=start + 1536,
            flow_size=140_000,
            json_offset=start + 142_848,
            json_size=6000,
            rgb_offset=start + 150_016,
            rgb_size=240_000,
            flow_member="flow.mp4",
            rgb_member="rgb.mp4",
        )


def _failure(row: PlanRow) -> Failure:
    return Failure(
        key=row.key,
        path=row.path,
        stage="decode",
        reason="truncated",
        message="the file ends in frame 17",
        retriable=False,
    )


def _number(row: PlanRow) -> int:
    return int(row.path[-11:-4])


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
