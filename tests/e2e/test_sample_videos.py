"""All sample videos, held against times that this file computes from the source by itself."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
import webdataset as wds

from flowprep.verify.check import verify

FPS = 10
pytestmark = pytest.mark.shared


def samples(shards: Path) -> dict[str, dict[str, Any]]:
    """The json of every sample, by path."""
    urls = [str(p) for p in sorted(shards.glob("*.tar"))]
    infos = [json.loads(s["json"]) for s in wds.WebDataset(urls, shardshuffle=False)]
    return {info["path"]: info for info in infos}


def decoded_times(path: Path) -> tuple[list[Fraction], Fraction]:
    """(presentation time of every frame, end of the last one), by decoding the file."""
    times, last_duration = [], Fraction(0)
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        for frame in video.decode(stream):
            assert frame.pts is not None
            assert frame.time_base is not None
            times.append(frame.pts * frame.time_base)
            last_duration = frame.duration * frame.time_base
    times.sort()
    if not last_duration:
        last_duration = (times[-1] - times[0]) / (len(times) - 1)
    return times, times[-1] + last_duration


def nearest_frames(times: list[Fraction], end: Fraction) -> list[int]:
    """For each t0 + k/FPS before the end, the nearest frame (the earlier of two), each once."""
    chosen: list[int] = []
    k = 0
    while (target := times[0] + Fraction(k, FPS)) < end:
        best = min(range(len(times)), key=lambda i: (abs(times[i] - target), i))
        if best not in chosen:
            chosen.append(best)
        k += 1
    return chosen


def test_every_video_is_a_sample(sample_shards: Path, shared_videos: list[Path]) -> None:
    dataset = json.loads((sample_shards / "_flowprep" / "dataset.json").read_text())
    assert dataset["planned"] == dataset["samples"] == len(shared_videos) == 12
    assert dataset["failures"] == 0
    assert verify(sample_shards, deep=True) == []


def test_frames_are_the_nearest_ones(sample_shards: Path, shared_videos: list[Path]) -> None:
    infos = samples(sample_shards)
    for path in shared_videos:
        info = infos[path.name]
        times, end = decoded_times(path)
        expected = nearest_frames(times, end)
        assert info["source_index"] == expected, path.name
        assert info["pts_s"] == pytest.approx([float(times[i]) for i in expected], abs=1e-5)
        assert info["n_frames"] == len(expected)
        assert info["n_flows"] == len(expected) - 1


def test_sizes(sample_shards: Path, shared_videos: list[Path]) -> None:
    infos = samples(sample_shards)
    for path in shared_videos:
        with av.open(str(path)) as video:
            frame = next(video.decode(video=0))
        info = infos[path.name]
        short, long = sorted((info["width"], info["height"]))
        source_short, source_long = sorted((frame.width, frame.height))
        assert short == 256
        assert long % 2 == 0
        assert abs(long - 256 * source_long / source_short) <= 1
        assert (info["width"] > info["height"]) == (frame.width > frame.height) or short == long
