"""Frames to encode, and what the checks of codecs share."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from flowprep.codec.base import GOP, Codec

FPS = 30
N_FRAMES = 2 * GOP + 5


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth random uint8 [H, W, 3] whose channels differ."""
    rng = np.random.default_rng(seed)
    gray = rng.uniform(50, 200, (height // 12 + 4, width // 12 + 4, 1))
    tint = rng.uniform(-40, 40, (height // 32 + 4, width // 32 + 4, 3))
    parts = [
        cv2.resize(part, (width, height), interpolation=cv2.INTER_CUBIC) for part in (gray, tint)
    ]
    return np.clip(np.rint(parts[0][..., None] + parts[1]), 0, 255).astype(np.uint8)


def make_frames(kind: str, height: int, width: int, n_frames: int = N_FRAMES) -> np.ndarray:
    """A texture that moves by (2, 1) px a frame; for flow `height` is that of one plane."""
    big = texture(height + n_frames, width + 2 * n_frames)
    rgb = np.stack([big[i : i + height, 2 * i : 2 * i + width] for i in range(n_frames)])
    if kind == "rgb":
        return rgb
    planes = np.concatenate([rgb[..., 0], rgb[..., 2]], axis=1)  # dx and dy differ
    return planes if kind == "flow8" else planes.astype(np.uint16) * 257 - 3


def frame_times(n_frames: int) -> np.ndarray:
    return np.arange(n_frames) / FPS


def encode(
    codec: Codec, frames: np.ndarray, folder: Path, chunks: list[int] | None = None
) -> bytes:
    """The file of `frames`, written in chunks of the given lengths."""
    path = folder / f"clip.{codec.suffix}"
    edges = np.cumsum(chunks or [len(frames)])[:-1]
    times = np.split(frame_times(len(frames)), edges)
    with codec.open_writer(path, frames.shape[1], frames.shape[2]) as writer:
        for part, pts_s in zip(np.split(frames, edges), times, strict=True):
            writer.write(part, pts_s)
    return path.read_bytes()


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return 10 * np.log10(255**2 / error) if error else np.inf
