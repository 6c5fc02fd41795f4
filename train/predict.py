"""What a run sees in videos, over time and as a whole.

    python -m train.predict --run runs/d3d video.mp4 more.mp4
    python -m train.predict --run runs/d3d video.mp4 --every 0.5 --top 3 --json

Frames are taken, turned and resized by the code and the settings that the run's dataset was
extracted with, and cut as its windows were, in the middle of the picture. One thing differs: what
a dataset stores went through its codec (x264 at crf 18 unless told otherwise), which loses a
little; what is predicted here did not.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from flowprep.clips import clips_of
from flowprep.config import Settings, settings_from
from flowprep.decode.base import get_decoder
from flowprep.errors import FlowprepError
from flowprep.records import F64, U8, Video
from flowprep.run.overlap import StageClock
from flowprep.run.probing import probe_one
from flowprep.run.stages import Broken, ClipTask, decode_stage, output_size
from train.checkpoint import Meta, load_net
from train.common import Place, place, run_main, tell
from train.config import parse
from train.data.batch import rgb_input
from train.data.windows import WindowConfig, cut_rgb, even_crops, frames_at

LONGEST_S = 1e9  # so that no video is cut into pieces


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Tell the classes of videos over time."""

    videos: tyro.conf.Positional[tuple[str, ...]] = ()  # files
    run: str = "runs/d3d"  # run folder or weights, of a network that sees RGB
    every: float = 0.0  # seconds from one window to the next; 0 = end to end
    top: int = 5  # classes told of each window
    json: bool = False  # print one JSON document
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto = cuda where there is one

    def __post_init__(self) -> None:
        if self.top < 1:
            raise FlowprepError(f"--top {self.top} is not usable", "give 1 or more")
        if self.every and not self.every >= 0.001:  # NaN too
            hint = "give 0.001 seconds or more, or 0 for windows end to end"
            raise FlowprepError(f"--every {self.every:g} is not usable", hint)


@dataclass(frozen=True)
class OpenVideo:
    """A video that can be predicted. Times are seconds from its first frame."""

    path: Path
    task: ClipTask
    settings: Settings
    time_T: F64  # of the frames taken
    end_s: float  # of its last frame


@dataclass(frozen=True)
class Seen:
    """The network's logits [K] of a window, in float32 on the CPU."""

    start_s: float  # of its first frame
    end_s: float  # when the frame after its last one starts, or the video ends
    logits_K: Tensor


def predict(config: PredictConfig) -> None:
    """Print what the run sees in each video. Raises FlowprepError before the first if one is no
    video, has fewer than two frames or is too small, or the run cannot say."""
    if not config.videos:
        raise FlowprepError("no video given", "python -m train.predict --run RUN VIDEO.mp4")
    net, meta = load_net(config.run)
    settings = _extraction(config.run, meta)
    videos = [open_video(Path(name), settings, meta.window) for name in config.videos]
    with place(config.device, "fp32") as here:
        net.to(here.device)
        documents = [_document(config, video, net, meta, here) for video in videos]
    if config.json:
        tell(json.dumps({"run": config.run, "videos": documents}, indent=1))


def _document(
    config: PredictConfig, video: OpenVideo, net: nn.Module, meta: Meta, here: Place
) -> dict[str, object]:
    """What is told of a video; without --json also printed, as it comes."""
    say = (lambda line: None) if config.json else tell
    say(f"{video.path}: {video.end_s:.2f} s, {len(video.time_T)} frames taken")
    seen, windows = list[Seen](), list[dict[str, object]]()
    for one in see(video, net, meta.window, config.every, here):
        seen.append(one)
        top = top_classes(one.logits_K, meta.classes, config.top)
        windows.append({"start_s": one.start_s, "end_s": one.end_s, "top": top})
        say(f"{one.start_s:9.2f} to {one.end_s:9.2f} s  {_line(top)}")
    whole = top_classes(of_video(seen), meta.classes, config.top)
    say(f"{'whole video':>23}  {_line(whole)}")
    return {"video": str(video.path), "seconds": video.end_s, "top": whole, "windows": windows}


def _line(top: list[dict[str, Any]]) -> str:
    return ", ".join(f"{guess['class']} {guess['probability']:.1%}" for guess in top)


def of_video(seen: Sequence[Seen]) -> Tensor:
    """The mean of the windows' logits [K]."""
    return torch.stack([one.logits_K for one in seen]).mean(0)


def top_classes(logits_K: Tensor, classes: Sequence[str], top: int) -> list[dict[str, Any]]:
    """The likeliest classes, at most `top`, with the softmax of their logits."""
    p, index = logits_K.softmax(0).topk(min(top, len(classes)))
    found = zip(index.tolist(), p.tolist(), strict=True)
    return [{"class": classes[i], "probability": p} for i, p in found]


def _extraction(run: str, meta: Meta) -> Settings:
    if meta.modality != "rgb":
        raise FlowprepError(
            f"{run} sees optical flow, a video file has RGB only",
            "give the student's run: python -m train.distill trains one",
        )
    if not meta.extraction:
        raise FlowprepError(
            f"{run} was trained on synthetic clips: how its frames would come out of a video is "
            "not defined",
            "give a run that was trained on shards",
        )
    return settings_from(meta.extraction, run)


def open_video(path: Path, settings: Settings, window: WindowConfig) -> OpenVideo:
    """Probe a video and list the frames that extract would take.

    Raises FlowprepError, with extract's reason, for what cannot be predicted.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise FlowprepError(f"{path}: {error.strerror}", "give the path of a video") from error
    found = Video(path=path.name, size_bytes=stat.st_size, mtime_ns=stat.st_mtime_ns)
    video = probe_one(path.parent, found)
    whole = replace(settings, clip_frames=0, clip_stride=0, clip_max_s=LONGEST_S)
    (clip,) = clips_of(video, whole)
    if video.media is None or clip.reason:
        raise _unusable(path, clip.reason, clip.message)
    _check_crop_fits(path, *output_size(video.media, settings), window)
    task = ClipTask(
        clip=clip, media=video.media, size_bytes=stat.st_size, mtime_ns=stat.st_mtime_ns
    )
    pts_s = video.media.pts_s
    time_T = pts_s[clip.source_index] - pts_s[0]
    return OpenVideo(path, task, settings, time_T, video.media.end_s - float(pts_s[0]))


def _check_crop_fits(path: Path, width: int, height: int, window: WindowConfig) -> None:
    if min(window.size(height, width)) < window.crop:
        raise FlowprepError(
            f"{path} is {width}x{height} after extraction's resize, "
            f"the run sees {window.crop}x{window.crop}",
            f"give a video whose short side has {window.crop} pixels or more",
        )


def _unusable(path: Path, reason: str, message: str) -> FlowprepError:
    hint = "give a video of two frames or more that a player shows"
    return FlowprepError(f"{path} cannot be predicted: {reason}: {message}", hint)


def see(
    video: OpenVideo, net: nn.Module, window: WindowConfig, every_s: float, here: Place
) -> Iterator[Seen]:
    """The logits of each window, as soon as its frames are there: memory does not grow with the
    video. `every_s`: seconds from window to window; 0 = end to end. The last one ends with the
    video; a video shorter than a window loops, as in training."""
    starts = window_starts(video.time_T, window, every_s)
    times_s = np.append(video.time_T, video.end_s)
    windows = cut_windows(frames_of(video, window), len(video.time_T), starts, window)
    for start, rgb_TSS3 in zip(starts, windows, strict=True):
        rgb_13TSS = torch.from_numpy(rgb_TSS3).permute(3, 0, 1, 2)[None].to(here.device)
        with torch.no_grad():
            logits_K = net(rgb_input(rgb_13TSS))[0].float().cpu()
        end = min(start + window.span, len(video.time_T))
        yield Seen(float(times_s[start]), float(times_s[end]), logits_K)


def window_starts(time_T: F64, window: WindowConfig, every_s: float) -> list[int]:
    """First frames of the windows: the nearest ones to every `every_s` seconds, or each after the
    one before it ends; and last the one that ends with the video."""
    last = max(len(time_T) - window.span, 0)
    if every_s:
        wanted_s = np.arange(time_T[0], time_T[last], every_s)
        found = np.searchsorted((time_T[1:] + time_T[:-1]) / 2, wanted_s).tolist()
    else:
        found = list(range(0, last, window.frames * window.stride))
    return sorted({start for start in found if start < last} | {last})


def frames_of(video: OpenVideo, window: WindowConfig) -> Iterator[U8]:
    """The frames uint8 [S, S, 3] in order: those extract takes, cut in the middle.

    Raises FlowprepError where the video does not decode, or its picture is smaller than the cut.
    """
    decoder = get_decoder()
    root = video.path.parent
    for event in decode_stage([video.task], root, video.settings, decoder, StageClock()):
        if isinstance(event, Broken):
            raise _unusable(video.path, event.error.reason, event.error.message)
        height, width = event.frames.rgb.shape[1:3]
        (crop,) = even_crops(window, height, width, 1)
        for frame_HW3 in event.frames.rgb:
            cut_HW3 = np.empty((window.crop, window.crop, 3), np.uint8)
            cut_rgb(window, frame_HW3, crop, cut_HW3)
            yield cut_HW3


def cut_windows(
    frames: Iterator[U8], n_frames: int, starts: Sequence[int], window: WindowConfig
) -> Iterator[U8]:
    """uint8 [T, S, S, 3] from each of `starts` (ascending), holding no more frames than it must."""
    waiting, kept = deque(starts), dict[int, U8]()
    for number, frame in enumerate(frames):
        if waiting and number >= waiting[0]:
            kept[number] = frame
        while waiting and number + 1 >= min(waiting[0] + window.span, n_frames):
            at_T = frames_at(window, n_frames, waiting.popleft()).tolist()
            yield np.stack([kept[at] for at in at_T])
            kept = {at: kept[at] for at in kept if waiting and at >= waiting[0]}


def main() -> None:
    predict(parse(PredictConfig, "python -m train.predict"))


if __name__ == "__main__":
    run_main(main)
