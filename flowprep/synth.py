"""Videos whose motion is known exactly: for the demo, the tests and the benchmarks.

A frame is a smooth texture evaluated at the positions its pixels came from, so sub-pixel motion is
exact, nothing is resampled, and what enters at a border is as sharp as the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from flowprep.records import F32, F64, U8

if TYPE_CHECKING:
    import av
    from av.video.codeccontext import VideoCodecContext

N_WAVES = 40
SHORTEST_WAVE_PX = 6.0  # well above the 2 px at which sampling would alias, zoomed out too
LONGEST_WAVE_PX = 96.0
CONTRAST = 44.0  # standard deviation of the gray texture, in levels of 255
COLOUR_SHARE = 0.25  # of the contrast; the rest is common to red, green and blue


class Texture:
    """A sum of seeded plane waves, log-spaced in length: detail for every pyramid level."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        length_px = np.geomspace(SHORTEST_WAVE_PX, LONGEST_WAVE_PX, N_WAVES)
        angle = rng.uniform(0, 2 * np.pi, N_WAVES)
        self._kx = 2 * np.pi / length_px * np.cos(angle)
        self._ky = 2 * np.pi / length_px * np.sin(angle)
        self._phase = rng.uniform(0, 2 * np.pi, N_WAVES)
        amplitude = length_px**0.5
        common = CONTRAST * amplitude / np.sqrt((amplitude**2).sum() / 2)
        self._gain_3N = common * (1 + COLOUR_SHARE * rng.uniform(-1, 1, (3, N_WAVES)))

    def __call__(self, x_HW: F64, y_HW: F64) -> U8:
        """uint8 [H, W, 3] at continuous positions, in pixels."""
        rgb_HW3 = np.full((*x_HW.shape, 3), 127.5)
        for kx, ky, phase, gain_3 in zip(
            self._kx, self._ky, self._phase, self._gain_3N.T, strict=True
        ):
            rgb_HW3 += np.sin(kx * x_HW + ky * y_HW + phase)[..., None] * gain_3
        return np.clip(np.rint(rgb_HW3), 0, 255).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Motion:
    """What one frame step does to every point: turn and scale about the centre, then shift.

    `Motion()` stands still.
    """

    dx_px: float = 0.0  # to the right
    dy_px: float = 0.0  # downward
    rotate_deg: float = 0.0  # clockwise on the screen
    zoom: float = 1.0  # above 1: towards the viewer
    shear: float = 0.0  # dx per px of y, before the turn
    ddx_px: float = 0.0  # how much dx grows from one step to the next
    ddy_px: float = 0.0

    def steps_33(self, n_steps: int, height: int, width: int) -> F64:
        """[n_steps, 3, 3]: homogeneous (x, y, 1) in a frame to where it is in the next one."""
        angle = np.deg2rad(self.rotate_deg)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        linear = self.zoom * turn @ np.array([[1.0, self.shear], [0.0, 1.0]])
        centre = np.array([(width - 1) / 2, (height - 1) / 2])
        steps = np.tile(np.eye(3), (n_steps, 1, 1))
        steps[:, :2, :2] = linear
        steps[:, :2, 2] = centre - linear @ centre + [self.dx_px, self.dy_px]
        steps[:, :2, 2] += np.arange(n_steps)[:, None] * [self.ddx_px, self.ddy_px]
        return steps

    def flow_T2HW(self, n_frames: int, height: int, width: int) -> F32:
        """float32 [n_frames - 1, 2, H, W]: exact forward flow of each pair."""
        flow = np.empty((n_frames - 1, 2, height, width), np.float32)
        here_2HW = np.stack(_grid(height, width))
        for i, step in enumerate(self.steps_33(n_frames - 1, height, width)):
            flow[i] = _apply(step, here_2HW) - here_2HW
        return flow


def render(motion: Motion, n_frames: int, height: int, width: int, seed: int = 0) -> U8:
    """uint8 [n_frames, H, W, 3] RGB of a seeded texture in motion."""
    texture, grid_2HW = Texture(seed), np.stack(_grid(height, width))
    frames = np.empty((n_frames, height, width, 3), np.uint8)
    from_first = np.eye(3)
    for i, step in enumerate([np.eye(3), *motion.steps_33(n_frames - 1, height, width)]):
        from_first = step @ from_first
        frames[i] = texture(*_apply(np.linalg.inv(from_first), grid_2HW))
    return frames


def render_wave(
    height: int, width: int, amplitude_px: float = 4.5, seed: int = 0
) -> tuple[U8, F32]:
    """Two frames, uint8 [2, H, W, 3], and their exact flow, float32 [2, H, W].

    Frame 1 at x shows frame 0 at x - wave(x), a sine over the width, after scikit-image's test of
    TV-L1. So the flow u solves u(x) = wave(x + u(x)); iterating that contracts.
    """
    x, y = _grid(height, width)

    def wave(at: F64) -> F64:
        return amplitude_px * np.sin(2 * np.pi * at / (width - 1))

    u = np.zeros_like(x)
    for _ in range(200):
        u = wave(x + u)
    texture = Texture(seed)
    frames = np.stack([texture(x, y), texture(x - wave(x), y)])
    return frames, np.stack([u, np.zeros_like(u)]).astype(np.float32)


def write_video(
    path: str | Path,
    rgb_THW3: U8,
    fps: float | Fraction,
    *,
    codec: str = "libx264",
    crf: int = 18,
    pix_fmt: str = "yuv420p",
) -> None:
    """Encode frames, BT.601 limited range, so that the same frames give the same bytes."""
    import av

    height, width = rgb_THW3.shape[1:3]
    if pix_fmt.startswith("yuv420p") and (height % 2 or width % 2):
        raise ValueError(f"{pix_fmt} needs even sides, got {width}x{height}; use yuv444p")
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        added = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream = cast("av.VideoStream", added)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        _make_repeatable(stream.codec_context, codec, crf)
        for rgb in rgb_THW3:
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            encoded = frame.reformat(
                format=pix_fmt,
                dst_colorspace=stream.codec_context.colorspace,
                dst_color_range=stream.codec_context.color_range,
            )
            container.mux(stream.encode(encoded))
        container.mux(stream.encode())


def _make_repeatable(context: VideoCodecContext, codec: str, crf: int) -> None:
    """One thread, no dates or versions; x264's mbtree gives other bytes from run to run."""
    from av.codec.context import Flags
    from av.video.reformatter import ColorRange, Colorspace

    context.options = {"crf": str(crf), "threads": "1"}
    if codec == "libx264":
        context.options |= {"x264-params": "mbtree=0"}
    context.color_range, context.colorspace = ColorRange.MPEG, Colorspace.ITU601
    context.flags |= Flags.bitexact


def _grid(height: int, width: int) -> tuple[F64, F64]:
    """(x, y) of every pixel."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return x, y


def _apply(affine_33: F64, points_2HW: F64) -> F64:
    return np.einsum("ij,jhw->ihw", affine_33[:2, :2], points_2HW) + affine_33[:2, 2, None, None]
