"""CPU milliseconds per frame of every stage, with the `constant` engine.

    python tests/bench/stages.py [--videos ../shared/videos] [--frames 250]

Sources are one real video scaled to each size and encoded as H.264 with B-frames at 25 fps. The
peer, in the same run, is what the old tools do with the same frames: cv2.VideoCapture, cv2.resize,
and three JPEGs of quality 95 (RGB, x, y) a frame.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import av
import cv2
import machine
import numpy as np

from flowprep.config import Settings
from flowprep.run.executors import Resources
from flowprep.run.job import run_shard
from flowprep.run.jobs import planned_shards
from flowprep.run.making import make_tools
from flowprep.run.prepare import Request, prepare
from flowprep.run.progress import make_display
from flowprep.run.reporting import Progress
from flowprep.run.workplace import Here
from flowprep.shard.layout import Layout

SIZES = [(320, 240), (340, 256), (1280, 720), (1920, 1080)]
CODECS = [("x264", "x264-flow"), ("x264-fast", "x264-flow-fast")]
STAGES = ["decode", "resize", "flow", "quantize", "encode rgb", "encode flow", "tar"]


def main() -> None:
    options = _options()
    rows = []
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            video = Path(folder) / "video.mp4"
            make_source(options.videos / "v_ZNVhz7ctTq0.mp4", video, size, options.frames)
            name = {"source": f"{size[0]}x{size[1]}"}
            rows += [name | measure(video, *codecs) for codecs in CODECS]
            rows[-1]["JPEG peer"] = rows[-2]["JPEG peer"] = peer_ms(video)
    for row in rows:
        row["total / peer"] = round(row["total"] / row["JPEG peer"], 2)
    print(machine.markdown(rows))
    print(machine.save("stages", rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=Path, default=machine.SHARED_VIDEOS)
    parser.add_argument("--frames", type=int, default=250)
    return parser.parse_args()


def make_source(real: Path, path: Path, size: tuple[int, int], n_frames: int) -> None:
    """`n_frames` of a real video, over and over, at another size."""
    with av.open(str(real)) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height = size
        stream.options = {"crf": "20", "preset": "veryfast"}
        for i in range(n_frames):
            scaled = cv2.resize(frames[i % len(frames)], size, interpolation=cv2.INTER_CUBIC)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(scaled, format="rgb24")))
        container.mux(stream.encode())


def measure(video: Path, rgb: str, flow: str, engine: str = "constant") -> dict[str, Any]:
    """One shard job in this process; CPU time as each stage's thread counted it."""
    settings = Settings(engine=engine, rgb_codec=rgb, flow_codec=flow)
    cpu_s: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as out:
        request = Request(
            src=str(video), out=out, settings=settings, resources=Resources(executor="local")
        )
        layout = Layout(Path(out))
        layout.marks.mkdir(parents=True)
        work = prepare(
            request, layout, make_display(False, quiet=True), Here(request.resources), dry=True
        )
        job = planned_shards(layout, work)[0].build()
        cv2.setNumThreads(1)
        tools = make_tools(settings)
        before = time.process_time()

        def report(progress: Progress) -> None:
            cpu_s.update(progress.cpu_s)  # type: ignore[arg-type]

        run_shard(job, tools, report)
        total_s = time.process_time() - before
    per_frame = 1000 / job.n_frames
    row: dict[str, Any] = {"codecs": f"{rgb}, {flow}"}
    row |= {stage: round(cpu_s[stage] * per_frame, 3) for stage in STAGES}
    row["all stages"] = round(sum(cpu_s.values()) * per_frame, 3)
    row["total"] = round(total_s * per_frame, 3)
    return row


def peer_ms(video: Path) -> float:
    """CPU milliseconds per frame of capture, resize and three JPEGs."""
    cv2.setNumThreads(1)
    capture = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    quality = [cv2.IMWRITE_JPEG_QUALITY, 95]
    n_frames, before = 0, time.process_time()
    while True:
        ok, frame = capture.read()
        if not ok:
            break
        n_frames += 1
        height, width = frame.shape[:2]
        scale = 256 / min(height, width)
        small = cv2.resize(frame, (2 * round(width * scale / 2), 2 * round(height * scale / 2)))
        flow = np.full(small.shape[:2], 134, np.uint8)
        for plane in (small, flow, flow):
            cv2.imencode(".jpg", plane, quality)
    return round(1000 * (time.process_time() - before) / n_frames, 3)


if __name__ == "__main__":
    main()
