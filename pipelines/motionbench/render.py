"""Clips of MotionGrid: a patch of texture that moves as its class says, over a texture that drifts.

Textures are sums of plane waves, so that a frame is exact at any place and nothing is resampled.
Palettes change the colour and leave the gray alone, from which flow is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from flowprep.records import F32, F64, U8
from pipelines.motionbench.motions import PALETTES, Paths, draw_paths, matrix

N_WAVES = 40
WAVE_PX = (7.0, 11.0)  # shortest and longest; at the smallest size of a patch still 5 px
CONTRAST = (30.0, 45.0)  # standard deviation of the gray, in levels of 255
DRIFT_PX = (0.1, 0.3)  # a frame step
RADIUS = (0.36, 0.44)  # of the patch, as a share of the picture's side
BUMPS = (2, 3, 4, 5)  # of the outline, a turn
BUMP = 0.12  # of the radius, deviation of each
NOISE = 1.5  # levels of 255, standard deviation
COLOUR, BACKGROUND_COLOUR = 12.0, 6.0  # distance from gray in Cb and Cr, levels of 255


class Waves:
    """A seeded gray texture of mean 0 and deviation 1, at every detail of WAVE_PX."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        length_px = np.geomspace(*WAVE_PX, N_WAVES)
        angle = rng.uniform(0, 2 * np.pi, N_WAVES)
        self._k_N2 = (2 * np.pi / length_px * np.array([np.cos(angle), np.sin(angle)])).T
        self._phase_N = rng.uniform(0, 2 * np.pi, N_WAVES)
        self._gain = (2 / N_WAVES) ** 0.5

    def seen(self, to_texture_33: F64, side: int) -> F64:
        """float64 [side, side]: the texture at where the matrix takes each pixel.

        The argument of a wave stays linear in x and y, and sin(a + b) splits into products of one
        factor for the column and one for the row: two products of matrices make the picture.
        """
        k_N2 = self._k_N2 @ to_texture_33[:2, :2]
        start_N = self._k_N2 @ to_texture_33[:2, 2] + self._phase_N
        at = np.arange(side)
        column_NW = np.outer(k_N2[:, 0], at) + start_N[:, None]
        row_HN = np.outer(at, k_N2[:, 1])
        summed = np.cos(row_HN) @ np.sin(column_NW) + np.sin(row_HN) @ np.cos(column_NW)
        return np.asarray(self._gain * summed, np.float64)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """All that is drawn for one clip, but for its motion and palette."""

    seed: int  # of textures and noise
    side: int  # of the picture, pixels
    n_frames: int
    paths: Paths
    radius_px: float
    bumps: tuple[float, ...]  # of the outline: size of each of BUMPS
    bump_angles: tuple[float, ...]
    contrasts: tuple[float, float]  # of the patch and of the background
    drift_px: tuple[float, float]  # of the background, a frame step
    colour_angle: float  # of the background

    def order(self, motion: int) -> range:
        """The moments of the scene that a clip of this motion shows, in its order."""
        moments = range(self.n_frames)
        return moments[::-1] if motion % 2 else moments

    def patch_33(self, motion: int, frame: int) -> F64:
        """From the patch to the picture, in a frame of a clip of this motion."""
        return matrix(self.paths.placed(motion, frame / (self.n_frames - 1)), self.side)

    def to_patch_33(self, motion: int, frame: int) -> F64:
        """From the picture to the patch."""
        return np.asarray(np.linalg.inv(self.patch_33(motion, frame)), np.float64)


def draw_scene(rng: np.random.Generator, side: int, n_frames: int) -> Scene:
    """What one clip shows, whatever its motion."""
    radius_px = float(rng.uniform(*RADIUS)) * side
    angle, speed_px = rng.uniform(0, 2 * np.pi), rng.uniform(*DRIFT_PX)
    n = len(BUMPS)
    return Scene(
        seed=int(rng.integers(2**31)),
        side=side,
        n_frames=n_frames,
        paths=draw_paths(rng, radius_px, side, n_frames - 1),
        radius_px=radius_px,
        bumps=tuple(rng.normal(0, BUMP, n).clip(-0.2, 0.2).tolist()),
        bump_angles=tuple(rng.uniform(0, 2 * np.pi, n).tolist()),
        contrasts=(float(rng.uniform(*CONTRAST)), float(rng.uniform(*CONTRAST))),
        drift_px=(float(speed_px * np.cos(angle)), float(speed_px * np.sin(angle))),
        colour_angle=float(rng.uniform(0, 2 * np.pi)),
    )


def render(scene: Scene, motion: int, palette: int) -> U8:
    """uint8 [T, H, W, 3] RGB."""
    patch, background = Waves(scene.seed), Waves(scene.seed + 2**31)
    colours = _tint(COLOUR, 2 * np.pi * (palette + 0.5) / len(PALETTES))
    behind = _tint(BACKGROUND_COLOUR, scene.colour_angle)
    frames = np.empty((scene.n_frames, scene.side, scene.side, 3), np.uint8)
    for frame, moment in enumerate(scene.order(motion)):
        to_patch_33 = scene.to_patch_33(motion, frame)
        cover_HW1 = _cover(scene, to_patch_33)[..., None]
        front = scene.contrasts[0] * patch.seen(to_patch_33, scene.side)[..., None] + colours
        back = scene.contrasts[1] * background.seen(_drifted(scene, -moment), scene.side)
        picture = 127.5 + cover_HW1 * front + (1 - cover_HW1) * (back[..., None] + behind)
        noise = np.random.default_rng((scene.seed, moment)).normal(0, NOISE, picture.shape)
        frames[frame] = np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)
    return frames


def flows(scene: Scene, motion: int) -> Iterator[tuple[F32, np.ndarray]]:
    """The exact flow of each pair, float32 [2, H, W], and which pixels are the patch's."""
    order = scene.order(motion)
    here_3HW = _pixels(scene.side)
    for frame in range(scene.n_frames - 1):
        to_patch_33 = scene.to_patch_33(motion, frame)
        is_patch_HW = _cover(scene, to_patch_33) >= 0.5
        patch = _moved(scene.patch_33(motion, frame + 1) @ to_patch_33, here_3HW)
        drift = _moved(_drifted(scene, order[frame + 1] - order[frame]), here_3HW)
        yield np.where(is_patch_HW, patch, drift).astype(np.float32), is_patch_HW


def _pixels(side: int) -> F64:
    """[3, H, W]: (x, y, 1) of each pixel."""
    y, x = np.mgrid[:side, :side].astype(np.float64)
    return np.stack([x, y, np.ones_like(x)])


def _moved(step_33: F64, here_3HW: F64) -> F64:
    """[2, H, W]: how far the matrix takes each pixel."""
    return np.einsum("ij,jhw->ihw", step_33, here_3HW)[:2] - here_3HW[:2]


def _drifted(scene: Scene, n_steps: int) -> F64:
    """[3, 3]: where the background is after so many steps."""
    matrix_33 = np.eye(3)
    matrix_33[:2, 2] = np.multiply(n_steps, scene.drift_px)
    return matrix_33


def _cover(scene: Scene, to_patch_33: F64) -> F64:
    """[H, W]: the share of each pixel that the patch covers, 0 to 1 over a pixel at its rim."""
    x, y = np.einsum("ij,jhw->ihw", to_patch_33, _pixels(scene.side))[:2]
    angle = np.arctan2(y, x)
    rim = np.ones_like(angle)
    for n, size, start in zip(BUMPS, scene.bumps, scene.bump_angles, strict=True):
        rim += size * np.cos(n * angle + start)
    px_per_patch_px = np.sqrt(1 / np.linalg.det(to_patch_33[:2, :2]))
    inside_px = (scene.radius_px * rim - np.hypot(x, y)) * px_per_patch_px
    return np.clip(inside_px + 0.5, 0, 1)


def _tint(length: float, angle: float) -> F64:
    """[3]: red, green and blue to add for this Cb and Cr of BT.601, which leave the gray alone."""
    cb, cr = length * np.cos(angle), length * np.sin(angle)
    return np.array([1.402 * cr, -0.344136 * cb - 0.714136 * cr, 1.772 * cb])
