"""How far what is stored may be from what the source gives now, and what a forgery comes to.

    python tests/bench/recompute_bars.py

Real videos are extracted with engine `cpu`, 48 frames of each; then `verify --recompute` measures
what other builds might have stored, and what nobody should have. The table in docs/verify.md.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import machine
import numpy as np

from flowprep.codec.base import Codec, get_codec
from flowprep.decode.geometry import to_gray
from flowprep.flow.base import compute_distinct, get_engine
from flowprep.quantize import make_quantizer
from flowprep.shard.reader import Sample
from flowprep.verify.compare import Comparison, Group, judged
from flowprep.verify.recompute import groups, source_of, stored_sample
from flowprep.verify.subjects import Bench, Subject, prepare

VIDEOS = (
    *("arm_wrestling.mp4", "v_GGSY1Qvo990.mp4", "v_ZNVhz7ctTq0.mp4", "mmaction2_test.avi"),
    *("nasa_13013.mp4", "h265_video.mp4", "animated.gif"),
)
EXTRACT = "--executor local --engine cpu --clip-frames 48 --clip-stride 100000 --quiet"


def flow_of(rgb: np.ndarray, **params: Any) -> np.ndarray:
    return compute_distinct(get_engine("cpu", **params), np.stack([to_gray(f) for f in rgb]))


def later(frames: np.ndarray) -> np.ndarray:
    return np.concatenate([frames[1:], frames[-1:]])


def changed(rgb: np.ndarray, by: np.ndarray | int) -> np.ndarray:
    return np.clip(rgb.astype(np.int16) + by, 0, 255).astype(np.uint8)


def variants(rgb: np.ndarray, uv: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray, str]]:
    """What is stored: name, RGB, flow, and what follows the names of the default codecs."""
    yield "the same", rgb, uv, ""
    yield "by other codecs", rgb, uv, "-fast"
    for name, by in {
        "frames one level brighter": 1,
        "frames with noise": np.random.default_rng(0).integers(-1, 2, rgb.shape, np.int16),
    }.items():
        yield name, changed(rgb, by), flow_of(changed(rgb, by)), ""
    yield "flow x 1.05", rgb, 1.05 * uv, ""
    yield "flow x 1.1", rgb, 1.1 * uv, ""
    yield "dx and dy swapped", rgb, uv[:, ::-1], ""
    yield "flow shifted", rgb, later(uv), ""
    yield "frames shifted", later(rgb), uv, ""
    yield "2 warps", rgb, flow_of(rgb, n_warps=2), ""


def encoded(codec: Codec, frames: np.ndarray, folder: Path) -> bytes:
    path = folder / f"bench.{codec.suffix}"
    with codec.open_writer(path, *frames.shape[1:3]) as writer:
        writer.write(np.ascontiguousarray(frames), np.arange(len(frames)) / 25)
    return path.read_bytes()


def measure(bench: Bench, subject: Subject, folder: Path) -> Iterator[dict[str, Any]]:
    info = stored_sample(bench, subject).info
    made = list(groups(bench, *source_of(bench, subject), get_engine("cpu")))
    rgb, uv = (np.concatenate([getattr(g, name) for g in made]) for name in ("rgb", "uv"))
    quantizer = make_quantizer(info.flow_map, info.flow_bound_px)
    for name, stored_rgb, stored_uv, kind in variants(rgb, uv):
        codes = quantizer.encode(np.ascontiguousarray(stored_uv))
        members = {
            info.rgb_member: encoded(get_codec(f"x264{kind}", ["rgb"]), stored_rgb, folder),
            info.flow_member: encoded(get_codec(f"x264-flow{kind}", ["flow8"]), codes, folder),
        }
        yield {"stored": name, **row_of(Sample(info.key, members), info, made, folder)}


def row_of(sample: Sample, info: Any, made: list[Group], folder: Path) -> dict[str, Any]:
    comparison = Comparison(
        sample=sample,
        info=info,
        rgb_codec=get_codec("x264", ["rgb"]),
        flow_codec=get_codec("x264-flow", ["flow8"]),
        quantizer=make_quantizer(info.flow_map, info.flow_bound_px),
        folder=folder,
    )
    for group in made:
        comparison.add(group)
    measured = comparison.finish()
    return {
        "mean flow px": f"{info.flow_mean_px:.2f}",
        "beyond storing px": f"{measured.flow_excess_px:.3f}",
        "length": f"{measured.gain:.3f}",
        "PSNR dB": f"{measured.psnr_db:.1f}",
        "lag": measured.lag,
        "found": ", ".join(sorted({code for code, _ in judged(measured)})),
    }


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "src").mkdir()
        for video in VIDEOS:
            (folder / "src" / video).symlink_to(machine.SHARED_VIDEOS / video)
        places = ["--src", str(folder / "src"), "--out", str(folder / "out")]
        command = [sys.executable, "-m", "flowprep", "extract", *places, *EXTRACT.split()]
        subprocess.run(command, check=True)
        bench, subjects = prepare(folder / "out", len(VIDEOS), 0, "")
        for subject in subjects:
            measured = measure(bench, subject, folder)
            rows += [{"video": subject.row.path, **row} for row in measured]
    print(machine.markdown(rows))
    machine.save("recompute_bars", rows)


if __name__ == "__main__":
    main()
