"""The videos of MotionGrid: known flow against their pixels, and no way to the label but motion."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

from pipelines.motionbench.motions import MOTIONS, PALETTES, opposite
from pipelines.motionbench.render import DRIFT_PX, Scene, draw_scene, flows, render
from pipelines.motionbench.scales import SCALES

SIDE, N_FRAMES = 80, 9
EVERY = range(len(MOTIONS))


def scene(number: int) -> Scene:
    return draw_scene(np.random.default_rng(number), SIDE, N_FRAMES)


def gray(frames: np.ndarray) -> np.ndarray:
    return np.stack([cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in frames]).astype(np.float32)


def sampled(image: np.ndarray, flow_2HW: np.ndarray) -> np.ndarray:
    """The image at where the flow leads; nan where that is not well inside it."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    at = np.stack([x, y]) + flow_2HW
    found = cv2.remap(image, *at, cv2.INTER_CUBIC)
    found[((at < 2) | (at > SIDE - 3)).any(0)] = np.nan
    return found


def shrunk(mask: np.ndarray, px: int = 4) -> np.ndarray:
    kernel = np.ones((2 * px + 1,) * 2, np.uint8)
    return cv2.erode(mask.astype(np.uint8), kernel, borderValue=0) > 0


@pytest.mark.parametrize("motion", EVERY, ids=MOTIONS)
def test_the_flow_leads_to_the_same_gray(motion: int) -> None:
    """In the patch and in the background; without the flow the frames differ much more."""
    one = scene(motion)
    pictures = gray(render(one, motion, palette=0))
    n_looked_at = np.zeros(2, int)
    for t, (flow, patch) in enumerate(flows(one, motion)):
        behind = shrunk(~patch, 6)  # where the patch is not in the next frame either
        for where, region in enumerate((shrunk(patch), behind)):
            moved = sampled(pictures[t + 1], flow)
            region &= np.isfinite(moved)
            if region.sum() <= 20:
                continue
            n_looked_at[where] += 1
            off = np.abs(moved - pictures[t])[region].mean()
            still = np.abs(pictures[t + 1] - pictures[t])[region].mean()
            assert off < 3
            if np.hypot(*flow)[region].mean() > 1:
                assert still > 2 * off
    assert (n_looked_at >= 4).all()


@pytest.mark.parametrize("motion", EVERY, ids=MOTIONS)
def test_the_opposite_motion_shows_the_same_frames_backwards(motion: int) -> None:
    """Bit for bit: so no statistic without order can tell the two apart."""
    one = scene(3)
    assert np.array_equal(render(one, opposite(motion), 1), render(one, motion, 1)[::-1])


@pytest.mark.parametrize("motion", EVERY, ids=MOTIONS)
def test_the_flow_of_the_opposite_motion_leads_back(motion: int) -> None:
    one = scene(5)
    forth, back = list(flows(one, motion)), list(flows(one, opposite(motion)))[::-1]
    for (there, patch), (here, _) in zip(forth, back, strict=True):
        returned = np.stack([sampled(axis, there) for axis in here])
        inner = shrunk(patch) & np.isfinite(returned[0])
        np.testing.assert_allclose(returned[:, inner], -there[:, inner], atol=0.02)


def moments_of(motion: int, number: int) -> dict[str, float]:
    """Of the patch, mean over the clip: motion, divergence, turn (clockwise), turn of the path."""
    found: dict[str, list[float]] = {"dx": [], "dy": [], "grows": [], "turns": []}
    path = []
    for flow, patch in flows(scene(number), motion):
        y, x = np.nonzero(patch)
        dx, dy = flow[:, patch]
        x, y = x - x.mean(), y - y.mean()
        values = dx.mean(), dy.mean(), (x * dx + y * dy).mean(), (x * dy - y * dx).mean()
        for name, value in zip(found, values, strict=True):
            found[name].append(float(value))
        path.append((dx.mean(), dy.mean()))
    (x0, y0), (x1, y1) = np.array(path[:-1]).T, np.array(path[1:]).T
    return {n: float(np.mean(v)) for n, v in found.items()} | {
        "bends": float(np.mean(x0 * y1 - y0 * x1)),
        "starts_x": abs(path[0][0]) - abs(path[0][1]),
        "ends_x": abs(path[-1][0]) - abs(path[-1][1]),
    }


MEANING = {
    "left": ("dx", -1),
    "right": ("dx", 1),
    "up": ("dy", -1),
    "down": ("dy", 1),
    "clockwise": ("turns", 1),
    "counterclockwise": ("turns", -1),
    "expand": ("grows", 1),
    "contract": ("grows", -1),
    "orbit-clockwise": ("bends", 1),
    "orbit-counterclockwise": ("bends", -1),
    "horizontal-first": ("starts_x", 1),
    "vertical-first": ("ends_x", 1),
}


@pytest.mark.parametrize("name", MOTIONS)
def test_motions_are_what_they_are_called(name: str) -> None:
    what, sign = MEANING[name]
    for number in range(5):
        found = moments_of(MOTIONS.index(name), number)
        assert sign * found[what] > 0.1
        if what == "dx":
            assert abs(found["dy"]) < 1e-3


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Kolmogorov and Smirnov's, of two samples."""
    at = np.concatenate([a, b])
    shares = [np.searchsorted(np.sort(s), at, "right") / len(s) for s in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())


N_DRAWN = 800
FAR = 1.95 * np.sqrt(2 / N_DRAWN)  # in one of 1,000 comparisons of equals


def placed(motion: int, frame: int | None) -> np.ndarray:
    """[N, 4]: x, y, angle and size of the patch in a frame, or in a random one of each clip."""
    rng = np.random.default_rng(motion)
    rows = []
    for number in range(N_DRAWN):
        at = rng.integers(N_FRAMES) if frame is None else frame
        one = scene(10_000 * motion + number)
        x, y, angle, size = one.paths.placed(motion, at / (N_FRAMES - 1))
        rows.append((x, y, angle % (2 * np.pi), size))
    return np.array(rows)


def test_a_random_frame_has_the_same_patch_whatever_the_motion() -> None:
    left, *others = (placed(motion, None) for motion in EVERY)
    for other in others:
        assert max(distance(a, b) for a, b in zip(left.T, other.T, strict=True)) < FAR
    first = placed(0, 0), placed(1, 0)  # the first frame alone would tell
    assert distance(first[0][:, 0], first[1][:, 0]) > 3 * FAR


@pytest.mark.parametrize("scale", ["small", "full"])
def test_nothing_moves_faster_than_flow_is_good_for(scale: str) -> None:
    side, n_frames = SCALES[scale].side, SCALES[scale].n_frames
    for number in range(15 if scale == "small" else 4):
        one = draw_scene(np.random.default_rng(number), side, n_frames)
        for motion in range(0, 12, 2):
            for flow, patch in flows(one, motion):
                assert np.hypot(*flow)[patch].max(initial=0) < 3
                assert DRIFT_PX[0] < np.hypot(*flow)[~patch].max() < DRIFT_PX[1] + 1e-3


def test_palettes_are_other_colours_of_the_same_gray() -> None:
    one = scene(7)
    pictures = [render(one, 0, palette) for palette in range(len(PALETTES))]
    for a, b in pairwise(pictures):
        assert np.abs(a.astype(int) - b).max() > 20
        assert np.abs(gray(a) - gray(b)).mean() < 1


def test_a_scene_is_told_by_its_seed_alone() -> None:
    assert scene(1) == scene(1)
    assert np.array_equal(render(scene(1), 4, 2), render(scene(1), 4, 2))
    assert scene(1) != scene(2)
