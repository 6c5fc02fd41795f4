"""Measure every codec on real videos: the table from which the defaults are chosen.

    python tests/bench/codecs.py --videos ../shared/videos --cache /tmp/codecs-cache

writes tests/bench/results/codecs_<cpu>_<date>.json and the table of docs/codecs.md. Times are CPU
time of one core, each the best of several repeats. The peer is JPEG q95 by OpenCV, in the same run.
Flow is that of the `opencv-cpu` engine, about 1.5 s a pair; the cache keeps it.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import machine
import numpy as np
from codecs_equal import FPS, equal_encodes, write
from codecs_table import render

from flowprep.codec.base import CODECS, DEFAULT_FLOW, DEFAULT_RGB, FAST_FLOW, FAST_RGB, get_codec
from flowprep.codec.pixels import whole
from flowprep.decode.base import get_decoder
from flowprep.flow.base import get_engine
from flowprep.quantize import Quantizer, make_quantizer

VIDEOS = ["arm_wrestling.mp4", "v_GGSY1Qvo990.mp4", "v_ZNVhz7ctTq0.mp4", "nasa_13013.mp4"]
VIDEOS += ["mmaction2_test.avi"]
SHORT_SIDE, BOUND_PX = 256, 20.0
FIRST, N_PAIRS = 120, 32  # the pairs measured: all five videos move there
N_LONG, N_WINDOW, N_WINDOWS = 10 * FPS, 64, 12
REPEATS = 9


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One video's frames around the measured pairs, and their flow."""

    name: str
    source_frame: np.ndarray  # before the resize
    long_rgb: np.ndarray  # [T, H, W, 3], up to 10 s
    uv: np.ndarray  # [32, 2, H, W]

    @property
    def rgb(self) -> np.ndarray:
        return self.long_rgb[FIRST : FIRST + N_PAIRS + 1]


def load_clip(path: Path, cache: Path) -> Clip:
    decoder = get_decoder("pyav")
    media = decoder.probe(str(path))
    wanted = media.pts_s[0] + np.arange(N_LONG) / FPS
    index = np.unique([int(np.argmin(np.abs(media.pts_s - time_s))) for time_s in wanted])
    frames = list(decoder.frames(str(path), media, index))
    long_rgb = np.stack([resize(frame) for frame in frames])
    gray = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in long_rgb[FIRST : FIRST + N_PAIRS + 1]]
    return Clip(
        name=path.name,
        source_frame=frames[0],
        long_rgb=long_rgb,
        uv=cached_flow(np.stack(gray), cache),
    )


def resize(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    scale = SHORT_SIDE / min(height, width)
    if scale == 1:
        return frame
    size = [
        SHORT_SIDE if side == min(height, width) else 2 * round(side * scale / 2)
        for side in (width, height)
    ]
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(frame, size, interpolation=method)


def cached_flow(gray_thw: np.ndarray, cache: Path) -> np.ndarray:
    path = cache / f"{hashlib.sha256(gray_thw.tobytes()).hexdigest()[:16]}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        np.save(path, get_engine("opencv-cpu").compute(gray_thw))
    return np.load(path)


def best_ms(work: Callable[[], object], n: int, repeats: int = REPEATS) -> float:
    """CPU milliseconds of one of the `n` things that `work()` does."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return 1000 * min(seconds) / n


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over the frames of each frame's PSNR; 99 when they are equal."""
    errors = [np.mean((x.astype(np.float32) - y) ** 2) for x, y in zip(a, b, strict=True)]
    return float(np.mean([10 * np.log10(255**2 / e) if e else 99.0 for e in errors]))


def flow_error(quantizer: Quantizer, codes: np.ndarray, uv: np.ndarray) -> dict[str, float]:
    error = np.sqrt(((quantizer.decode(codes) - uv) ** 2).sum(axis=1))
    return {"epe_mean": float(error.mean()), "epe_p95": float(np.quantile(error, 0.95))}


def measure(codec_name: str, clip: Clip, folder: Path) -> dict[str, float]:
    """Bytes, times and error of one codec on one clip."""
    entry = CODECS[codec_name]
    codec = get_codec(codec_name, [entry.kind])
    quantizer = make_quantizer("int16" if entry.kind == "flow16" else "symmetric", BOUND_PX)
    frames = clip.rgb if entry.kind == "rgb" else quantizer.encode(clip.uv)
    data = write(codec_name, frames, folder)
    back = codec.read(data)
    row = {
        "bytes_per_frame": len(data) / len(frames),
        "encode_ms": best_ms(lambda: write(codec_name, frames, folder), len(frames)),
        "decode_ms": best_ms(lambda: codec.read(data), len(frames)),
        "window_ms": window_ms(codec_name, frames, clip, folder),
    }
    if entry.kind == "rgb":
        shift = np.abs((back.astype(np.float32) - frames).mean((0, 1, 2))).max()
        return row | {"psnr_db": psnr_db(frames, back), "colour_shift": float(shift)}
    return row | flow_error(quantizer, back, clip.uv)


def window_ms(codec_name: str, frames: np.ndarray, clip: Clip, folder: Path) -> float:
    """A random window of 64 frames out of 10 s; flow is repeated to and fro to that length."""
    codec = get_codec(codec_name, [CODECS[codec_name].kind])
    tour = np.concatenate([frames, frames[::-1]])
    long = clip.long_rgb if codec.kind == "rgb" else np.resize(tour, (N_LONG, *frames.shape[1:]))
    data = write(codec_name, long, folder)
    starts = np.random.default_rng(0).integers(0, len(long) - N_WINDOW, N_WINDOWS)
    return best_ms(lambda: [codec.read(data, s, s + N_WINDOW) for s in starts], N_WINDOWS, 1)


def bounds(clip: Clip) -> dict[str, float]:
    """What no codec of these pixel formats can do better."""
    rgb = get_codec(DEFAULT_RGB, ["rgb"])
    pixels = rgb.pixel_format(*clip.rgb.shape[1:3])
    everything = whole("rgb", *clip.rgb.shape[1:3])
    back = np.stack([pixels.unpack(pixels.pack(frame), everything) for frame in clip.rgb])
    quantizer = make_quantizer("symmetric", BOUND_PX)
    steps = flow_error(quantizer, quantizer.encode(clip.uv), clip.uv)
    magnitude = np.sqrt((clip.uv**2).sum(axis=1))
    return {
        "psnr_db_yuv420": psnr_db(clip.rgb, back),
        "epe_mean_8bit": steps["epe_mean"],
        "epe_p95_8bit": steps["epe_p95"],
        "flow_median_px": float(np.median(magnitude)),
        "saturated_percent": 100 * quantizer.saturated_count(clip.uv) / clip.uv.size,
    }


def plain_reader(clip: Clip, folder: Path) -> dict[str, float]:
    """What `frame.to_ndarray(format="rgb24")` makes of the default RGB codec."""
    import av

    with av.open(io.BytesIO(write(DEFAULT_RGB, clip.rgb, folder))) as container:
        back = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    shift = (back.astype(np.float32) - clip.rgb).mean((0, 1, 2))
    return {"psnr_db": psnr_db(clip.rgb, back), "shift": float(shift[np.abs(shift).argmax()])}


def whole_path_ms(clip: Clip, names: tuple[str, str], folder: Path) -> float:
    """Resize, quantise, encode both modalities and append to a tar: CPU ms per frame."""
    quantizer = make_quantizer("symmetric", BOUND_PX)

    def work() -> None:
        for _ in range(N_PAIRS):
            resize(clip.source_frame)
        members = [
            write(names[0], clip.rgb[:N_PAIRS], folder),
            write(names[1], quantizer.encode(clip.uv), folder),
        ]
        with tarfile.open(folder / "shard.tar", "w") as tar:
            for number, member in enumerate(members):
                info = tarfile.TarInfo(f"clip.{number}")
                info.size = len(member)
                tar.addfile(info, io.BytesIO(member))

    return best_ms(work, N_PAIRS)


def libraries() -> str:
    """FFmpeg's parts, as PyAV carries them; libavcodec 62.28 is FFmpeg 8.1."""
    import av

    return ", ".join(
        f"{name} {'.'.join(map(str, av.library_versions[name]))}"
        for name in ("libavcodec", "libavformat", "libswscale")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "codecs-cache")
    parser.add_argument("--encodes", type=int, default=200, help="for the check of equal bytes")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    clips = [load_clip(options.videos / name, options.cache) for name in VIDEOS]
    results: dict[str, Any] = {
        "machine": machine.describe(),
        "libraries": libraries(),
        "videos": {clip.name: bounds(clip) for clip in clips},
        "params": {n: get_codec(n, [e.kind]).params for n, e in CODECS.items()},
    }
    pairs = {"default": (DEFAULT_RGB, DEFAULT_FLOW), "fast": (FAST_RGB, FAST_FLOW)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results["codecs"] = {
            codec: {clip.name: measure(codec, clip, folder) for clip in clips} for codec in CODECS
        }
        results["plain_reader"] = {clip.name: plain_reader(clip, folder) for clip in clips}
        results["whole_path_ms"] = {
            preset: {clip.name: whole_path_ms(clip, names, folder) for clip in clips}
            for preset, names in pairs.items()
        }
    results["pairs"] = pairs
    results["equal_encodes"] = {codec: equal_encodes(codec, options.encodes) for codec in CODECS}
    cpu = re.sub(r"[^a-z0-9]+", "-", results["machine"]["cpu"].lower()).strip("-")
    path = machine.RESULTS / f"codecs_{cpu}_{results['machine']['date']}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(render(results, path))


if __name__ == "__main__":
    main()
