"""The JPEG peer of loader.py, and the storage that both read from."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import flowprep.shard.reader
from flowprep.codec.base import Region, get_codec
from flowprep.quantize import make_quantizer
from flowprep.shard.reader import flow_px, iter_samples
from train.data.reader import Span, Stretch
from train.data.table import Table

QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 95]
SHORTEST_SLEEP_S = 0.01


class Storage:
    """Counts bytes; waits for them where a rate is set."""

    n_bytes = 0
    owed_s = waited_s = mb_per_s = 0.0

    def took(self, n_bytes: int) -> None:
        """Sleep once it is long enough for the system to keep time."""
        self.n_bytes += n_bytes
        if self.mb_per_s:
            self.owed_s += n_bytes / self.mb_per_s / 1e6
        if self.owed_s > SHORTEST_SLEEP_S:
            before = time.perf_counter()
            time.sleep(self.owed_s)
            slept_s = time.perf_counter() - before
            self.waited_s, self.owed_s = self.waited_s + slept_s, self.owed_s - slept_s


STORAGE = Storage()


class CountedSlice(flowprep.shard.reader.Slice):
    """A member whose reads are counted."""

    def readinto(self, buffer: Any) -> int:
        n_read = super().readinto(buffer)
        STORAGE.took(n_read)
        return n_read


class LooseReader:
    """Frames as files: KEY/img_00000.jpg, KEY/flow_x_00000.jpg, KEY/flow_y_00000.jpg."""

    folder = Path()

    def __init__(self, table: Table) -> None:
        self._table = table
        self._quantizer = make_quantizer("i3d", 20)

    def read(self, row: int, rgb: Span | None, flow: Span | None) -> Stretch:
        clip = self.folder / self._table.key_N[row].as_py()
        return Stretch(
            None if rgb is None else _loose_frames(clip, rgb),
            None if flow is None else _loose_codes(clip, flow),
            self._quantizer.zero_code,
            self._quantizer.px_per_code,
            next((span.region for span in (rgb, flow) if span), None),
        )


def _loose_frames(clip: Path, span: Span) -> Iterator[np.ndarray]:
    for i in range(*span):
        bgr = _imread(f"{clip}/img_{i:05d}.jpg", cv2.IMREAD_COLOR)
        yield cv2.cvtColor(_part(bgr, span.region), cv2.COLOR_BGR2RGB)


def _loose_codes(clip: Path, span: Span) -> Iterator[np.ndarray]:
    for i in range(*span):
        xy = [_imread(f"{clip}/flow_{a}_{i:05d}.jpg", cv2.IMREAD_GRAYSCALE) for a in "xy"]
        yield np.concatenate([_part(codes, span.region) for codes in xy])


def _part(image: np.ndarray, region: Region | None) -> np.ndarray:
    if region is None:
        return image
    bottom, right = region.top + region.height, region.left + region.width
    return image[region.top : bottom, region.left : right]


def _imread(path: str, flag: int) -> np.ndarray:
    image = cv2.imread(path, flag)
    assert image is not None
    STORAGE.took(os.stat(path).st_size)
    return image


def write_loose(shards: Path, folder: Path) -> int:
    """All frames of all samples as JPEG. Returns their bytes."""
    quantizer, n_bytes = make_quantizer("i3d", 20), 0
    for tar in sorted(shards.glob("*.tar")):
        for sample in iter_samples(tar):
            info = sample.info
            clip = folder / sample.key
            clip.mkdir(parents=True)
            rgb = get_codec(info.rgb_codec, ["rgb"]).read(sample.members[info.rgb_member])
            stored = get_codec(info.flow_codec, ["flow8"]).read(sample.members[info.flow_member])
            codes = quantizer.encode(flow_px(info, stored))
            for i, frame in enumerate(rgb):
                n_bytes += _imwrite(clip / f"img_{i:05d}.jpg", frame[..., ::-1])
            for i, (x, y) in enumerate(codes.reshape(len(codes), 2, info.height, info.width)):
                n_bytes += _imwrite(clip / f"flow_x_{i:05d}.jpg", x)
                n_bytes += _imwrite(clip / f"flow_y_{i:05d}.jpg", y)
    return n_bytes


def _imwrite(path: Path, image: np.ndarray) -> int:
    cv2.imwrite(str(path), image, QUALITY)
    return path.stat().st_size
