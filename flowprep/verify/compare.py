"""What a sample stores against what its source gives now, a group of pictures at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from flowprep.codec.base import Codec
from flowprep.quantize import Quantizer
from flowprep.records import F32, U8
from flowprep.shard.reader import Sample, flow_px
from flowprep.shard.schema import SampleInfo

FLOW_SLACK_PX = 0.1
"""Mean error a group may have beyond that of storing it. Other builds of an engine differ by 0.063
px on the worst of 66 real pairs (docs/engines.md), where the answer itself is loose."""
RGB_SLACK = 1.0
"""Mean squared error a group may have beyond twice that of storing it: one level everywhere, which
another build of the decoder may be off."""
GAIN_TOLERANCE, GAIN_FROM_PX = 0.04, 0.2
"""How far the stored flow may be longer or shorter throughout than the same flow stored again, and
from which RMS length on this is judged."""
LAG_MARGIN = 0.8
"""Frames are shifted when their neighbours fit with an error below this share of their own."""


@dataclass(frozen=True)
class Group:
    """Successive frames computed again: rgb [n, H, W, 3], and the flow [m, 2, H, W] that ends in
    them; m = n - 1 in the first group, n in the others.
    """

    rgb: U8
    uv: F32


@dataclass
class Measured:
    """Errors of a sample. `worst_*` are of the group that exceeds its bar most."""

    flow_epe_px: float = 0.0  # mean over the clip, stored against computed again
    flow_excess_px: float = 0.0  # most that a group's error is above that of storing it
    rgb_mse: float = 0.0  # mean over the clip
    rgb_excess: float = 0.0  # likewise, above twice that of storing it
    gain: float = 1.0  # length of the stored flow per length of that computed and stored again
    lag: int = 0  # stored frame i is frame i + lag of the source
    worst_flow: str = ""  # "frames 16..31"
    worst_rgb: str = ""

    @property
    def psnr_db(self) -> float:
        """Of the RGB frames; 99 when they are the same."""
        return 10 * math.log10(255**2 / self.rgb_mse) if self.rgb_mse > 1e-5 else 99.0

    def as_dict(self) -> dict[str, float]:
        return {
            "flow_epe_px": round(self.flow_epe_px, 4),
            "flow_gain": round(self.gain, 4),
            "psnr_db": round(self.psnr_db, 2),
        }


@dataclass
class Comparison:
    """Adds groups up. The bars come from storing each group once more with the same codec."""

    sample: Sample
    info: SampleInfo
    rgb_codec: Codec
    flow_codec: Codec
    quantizer: Quantizer
    folder: Path
    measured: Measured = field(default_factory=Measured)
    _n_frames: int = 0
    _n_flows: int = 0
    _stored_now: list[float] = field(default_factory=list)  # inner products, px^2
    _again_now: list[float] = field(default_factory=list)
    _lags: np.ndarray = field(default_factory=lambda: np.zeros(3))  # squared errors at -1, 0, 1

    def __post_init__(self) -> None:
        members, info = self.sample.members, self.info
        self._rgb = self.rgb_codec.frames(members[info.rgb_member])
        self._flow = self.flow_codec.frames(members[info.flow_member])

    def add(self, group: Group) -> None:
        """Raises ValueError when fewer frames or others are stored."""
        first = self._n_frames
        where = f"frames {first}..{first + len(group.rgb) - 1}"
        self._add_rgb(group.rgb, where)
        if len(group.uv):
            self._add_flow(group.uv, where)

    def _add_rgb(self, now: U8, where: str) -> None:
        stored = taken(self._rgb, len(now))
        again = stored_again(self.rgb_codec, now, self.folder)
        error, bar = squared(stored, now), 2 * squared(again, now)
        measured, n_before = self.measured, self._n_frames
        self._n_frames += len(now)
        measured.rgb_mse += (error - measured.rgb_mse) * len(now) / (n_before + len(now))
        if error - bar > measured.rgb_excess:
            measured.rgb_excess, measured.worst_rgb = error - bar, where
        if len(now) > 2:
            inner = stored[1:-1]
            shifted = (now[:-2], now[1:-1], now[2:])
            self._lags += [squared(inner, frames) * len(inner) for frames in shifted]

    def _add_flow(self, now: F32, where: str) -> None:
        bound = np.float32(self.quantizer.bound_px)
        now = np.clip(now, -bound, bound)
        stored = flow_px(self.info, taken(self._flow, len(now)))
        codes = stored_again(self.flow_codec, self.quantizer.encode(now), self.folder)
        again = self.quantizer.decode(codes)
        error, bar = epe_px(stored, now), epe_px(again, now)
        measured, n_before = self.measured, self._n_flows
        self._n_flows += len(now)
        measured.flow_epe_px += (error - measured.flow_epe_px) * len(now) / (n_before + len(now))
        if error - bar > measured.flow_excess_px:
            measured.flow_excess_px, measured.worst_flow = error - bar, where
        for flow, products in ((stored, self._stored_now), (again, self._again_now)):
            products.append(float(np.vdot(flow, now)))

    def finish(self) -> Measured:
        """All groups were added. Raises ValueError when more is stored."""
        if next(self._rgb, None) is not None or next(self._flow, None) is not None:
            raise ValueError("more frames are stored than the source gives")
        measured, length = self.measured, sum(self._again_now)
        pixels = max(1, self._n_flows * self.info.height * self.info.width)
        if length / pixels > GAIN_FROM_PX**2:
            measured.gain = sum(self._stored_now) / length
        best = int(np.argmin(self._lags))
        if self._lags[best] < LAG_MARGIN * self._lags[1]:
            measured.lag = best - 1
        return measured


def taken(frames: Iterator[np.ndarray], n: int) -> np.ndarray:
    """The next n frames. Raises ValueError when there are fewer."""
    found = list(islice(frames, n))
    if len(found) < n:
        raise ValueError("fewer frames are stored than the source gives")
    return np.stack(found)


def stored_again(codec: Codec, frames: np.ndarray, folder: Path) -> np.ndarray:
    """Frames as they come back from the codec."""
    path = folder / f"again.{codec.suffix}"
    with codec.open_writer(path, *frames.shape[1:3]) as writer:
        writer.write(np.ascontiguousarray(frames), np.arange(len(frames)) / 25)
    return codec.read(path.read_bytes())


def squared(one: np.ndarray, other: np.ndarray) -> float:
    """Mean squared difference of uint8 images. Raises ValueError when their sizes differ."""
    if one.shape != other.shape:
        raise ValueError(f"frames are {list(one.shape[1:3])}, {list(other.shape[1:3])} expected")
    sums = [
        np.square(np.subtract(a, b, dtype=np.int16), dtype=np.int32).sum(dtype=np.int64)
        for a, b in zip(one, other, strict=True)
    ]
    return float(sum(sums)) / one.size


def epe_px(one: F32, other: F32) -> float:
    """Mean end-point error of flow [m, 2, H, W]. Raises ValueError when the sizes differ."""
    if one.shape != other.shape:
        raise ValueError(f"flow is {list(one.shape[2:])}, {list(other.shape[2:])} expected")
    errors = [np.hypot(*(a - b)).mean(dtype=np.float64) for a, b in zip(one, other, strict=True)]
    return float(np.mean(errors))


def judged(measured: Measured) -> Iterator[tuple[str, str]]:
    """What is beyond its bar."""
    if measured.lag:
        yield "rgb-differs", f"frame i is frame i{measured.lag:+d} of the clip"
    elif measured.rgb_excess > RGB_SLACK:
        rms = measured.rgb_excess**0.5
        yield (
            "rgb-differs",
            f"{measured.psnr_db:.1f} dB from the source; in {measured.worst_rgb} "
            f"{rms:.1f} levels (RMS) more than storing explains",
        )
    if measured.flow_excess_px > FLOW_SLACK_PX:
        yield (
            "flow-differs",
            f"{measured.flow_epe_px:.3f} px from the flow computed again; in "
            f"{measured.worst_flow} {measured.flow_excess_px:.3f} px more than storing explains",
        )
    elif abs(measured.gain - 1) > GAIN_TOLERANCE:
        yield "flow-differs", f"{measured.gain:.3f} times as long as the flow computed again"
