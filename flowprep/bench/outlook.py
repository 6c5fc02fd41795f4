"""What a dataset would take, from the measured rates."""

from __future__ import annotations

from dataclasses import dataclass

from flowprep.bench.clip import FPS, HEIGHT, WIDTH
from flowprep.config import Settings
from flowprep.run.estimate import pixel_bytes

MACHINES = (1, 8, 64)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """How much is asked about."""

    hours: float = 100.0
    fps: float = float(FPS)
    short_side: int = HEIGHT

    @property
    def n_frames(self) -> float:
        """And about as many flows."""
        return self.hours * 3600 * self.fps

    @property
    def relative_pixels(self) -> float:
        """Pixels of a frame, relative to those of the clip that was measured."""
        return (self.short_side / HEIGHT) ** 2

    @property
    def n_bytes(self) -> float:
        """Of its shards with the default codecs."""
        pixels = self.n_frames * WIDTH * HEIGHT * self.relative_pixels
        return pixels * pixel_bytes(Settings())


def machine_s(
    dataset: Dataset, flows_per_s: float, around_s: float, n_cores: int, on_gpu: bool
) -> float:
    """Seconds of one machine that computes so many flows of the measured clip a second.

    `around_s` are CPU seconds a frame. Cores do that and the flow one after the other; beside a
    GPU they work at the same time as it, and the slower of both decides.
    """
    flow_s, other_s = 1 / flows_per_s, around_s / n_cores
    frame_s = max(flow_s, other_s) if on_gpu else flow_s + other_s
    return dataset.n_frames * dataset.relative_pixels * frame_s


def assumptions(dataset: Dataset) -> list[str]:
    """What has to hold for the outlook to come true."""
    return [
        f"{dataset.n_frames:,.0f} frames and about as many flows: sources of {dataset.fps:g} "
        "frames a second or more",
        f"frames of {WIDTH}x{HEIGHT} times {dataset.relative_pixels:.3g} in pixels, and time that "
        "grows with pixels; 16:9 has a third more pixels than this shape",
        "motion as in the rendered clip: the content decides how many iterations a pair takes; 66 "
        "real pairs that move took 23 to 137 M pixel-iterations, 38 M in the median",
        "source videos of the stored size; larger ones take longer to decode",
        "machines like this one with nothing else to do, shards for all of them at any time, and a "
        "disk that keeps up; workers start in no time",
        "the default codecs, at their mean bytes in docs/codecs.md",
    ]
