"""Samples as code that is not ours reads them: tarfile, PyAV, zipfile and OpenCV."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

CLIP_PX = 20.0


@dataclass(frozen=True)
class Plain:
    """One sample, decoded whole."""

    info: dict[str, Any]
    rgb_THW3: np.ndarray  # by swscale, about a level darker than ours
    flow_T2HW: np.ndarray  # float64, pixels

    @property
    def n_frames(self) -> int:
        return len(self.rgb_THW3)


def read_all(shards: Path) -> dict[str, Plain]:
    """Every sample by its key."""
    members: dict[str, dict[str, bytes]] = defaultdict(dict)
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as tar:
            for info in tar:
                key, _, suffix = info.name.partition(".")
                file = tar.extractfile(info)
                assert file is not None
                members[key][suffix] = file.read()
    return {key: _plain(sample) for key, sample in members.items()}


def _plain(sample: dict[str, Any]) -> Plain:
    info = json.loads(sample["json"])
    rgb = _decoded(sample[info["rgb_member"]], "rgb24")
    pixels = "gray16le" if info["flow_map"] == "int16" else "gray"
    codes = _decoded(sample[info["flow_member"]], pixels).astype(np.float64)
    flow = (codes - info["flow_zero_code"]) * info["flow_px_per_code"]
    return Plain(info, rgb, flow.reshape(len(codes), 2, info["height"], info["width"]))


def _decoded(data: bytes, pixels: str) -> np.ndarray:
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            images = [np.frombuffer(archive.read(n), np.uint8) for n in archive.namelist()]
        return np.stack([cv2.imdecode(i, cv2.IMREAD_COLOR)[..., ::-1] for i in images])
    with av.open(io.BytesIO(data)) as container:
        return np.stack([f.to_ndarray(format=pixels) for f in container.decode(video=0)])


def unit_flow(flow_T2HW: np.ndarray) -> np.ndarray:
    """[2, T, H, W]: what a batch holds."""
    return (flow_T2HW.clip(-CLIP_PX, CLIP_PX) / CLIP_PX).swapaxes(0, 1)


def find(flow_2THW: np.ndarray, sample: Plain) -> list[tuple[int, int, int]]:
    """Every (start, top, left) at which successive flows of a sample are these."""
    whole = unit_flow(sample.flow_T2HW)
    _, n, side, _ = flow_2THW.shape
    counts = [m - k + 1 for m, k in zip(whole.shape[1:], (n, side, side), strict=True)]
    fits = np.ones(counts, bool)
    for t, y, x in [(0, 0, 0), (n // 2, side // 2, 3), (n - 1, side - 1, side - 1)]:
        there = whole[:, t : t + counts[0], y : y + counts[1], x : x + counts[2]]
        fits &= np.isclose(there, flow_2THW[:, t, y, x].reshape(2, 1, 1, 1), atol=1e-6).all(0)
    spots = np.argwhere(fits).tolist()
    return [
        (s, y, x)
        for s, y, x in spots
        if np.allclose(whole[:, s : s + n, y : y + side, x : x + side], flow_2THW, atol=1e-6)
    ]
