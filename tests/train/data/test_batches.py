"""What is in a batch, against samples decoded by plain readers and cut by hand."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from plain import Plain, find, read_all, unit_flow

from train.data.batch import Batch
from train.data.loader import eval_loader, train_loader
from train.data.table import Table, load_table
from train.data.windows import WindowConfig

T, SIDE = 8, 48
SMALL = WindowConfig(frames=T, crop=SIDE)
SWSCALE_LEVELS = 3.0  # swscale's RGB against OpenCV's, mean of the difference


def unlabelled(shards: Path) -> Table:
    return load_table(str(shards), labelled=False, val_share=0)


def each(table: Table, batch: Batch) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(path, RGB [T, H, W, 3], flow [2, T, H, W]) of every place of a batch."""
    rgb, flow = batch.rgb_B3THW.permute(0, 2, 3, 4, 1).numpy(), batch.flow_B2THW.numpy()
    paths = [table.videos[int(v)].as_py() for v in batch.video_B]
    return list(zip(paths, rgb, flow, strict=True))


def by_path(shards: Path) -> dict[str, Plain]:
    return {sample.info["path"]: sample for sample in read_all(shards).values()}


def assert_same_picture(rgb: np.ndarray, plain: np.ndarray) -> None:
    assert np.abs(rgb.astype(int) - plain).mean() < SWSCALE_LEVELS


@pytest.mark.parametrize("name", ["i3d", "int16"])
def test_the_middle_window_is_what_plain_readers_give(
    name: str, request: pytest.FixtureRequest
) -> None:
    shards = request.getfixturevalue(name)
    table, samples = unlabelled(shards), by_path(shards)
    (batch,) = eval_loader(table, SMALL, batch=8)
    assert batch.rgb_B3THW.dtype == torch.uint8
    assert batch.flow_B2THW.dtype == torch.float32
    assert batch.label_B.tolist() == [-1, -1]
    for path, rgb, flow in each(table, batch):
        sample = samples[path]
        height, width = sample.rgb_THW3.shape[1:3]
        start = (sample.n_frames - T) // 2
        top, left = (height - SIDE) // 2, (width - SIDE) // 2
        at = slice(start, start + T), slice(top, top + SIDE), slice(left, left + SIDE)
        want = unit_flow(sample.flow_T2HW)[:, at[0], at[1], at[2]]
        np.testing.assert_allclose(flow, want, atol=2e-6)
        assert_same_picture(rgb, sample.rgb_THW3[at])


def test_a_bound_below_20_px_still_divides_by_20(i3d: Path) -> None:
    table = unlabelled(i3d)
    (batch,) = eval_loader(table, SMALL, batch=8)
    (fast,) = [flow for path, _, flow in each(table, batch) if path == "fast.mp4"]
    assert np.median(fast[0]) == pytest.approx(5 / 20, abs=0.01)
    assert fast[0].max() <= 5 / 20 + 1e-6


def test_training_cuts_flow_and_rgb_at_the_same_place(int16: Path) -> None:
    table, samples = unlabelled(int16), by_path(int16)
    batches = train_loader(table, SMALL, batch=2, seed=5)
    places = set()
    for _ in range(3):
        for path, rgb, flow in each(table, next(batches)):
            ((start, top, left),) = find(flow, samples[path])
            places.add((path, start, top, left))
            window = samples[path].rgb_THW3[start : start + T, top : top + SIDE, left : left + SIDE]
            assert_same_picture(rgb, window)
    assert len(places) == 6


@pytest.mark.parametrize(
    ("name", "motion"), [("left", (-2, 0)), ("right", (2, 0)), ("down", (0, 1.5))]
)
def test_known_motion_comes_back(labelled: Path, name: str, motion: tuple[float, float]) -> None:
    """In the flow, and in the pictures: the next frame is this one moved."""
    table = load_table(str(labelled))
    of_class = table.rows(np.flatnonzero(table.label_N == table.classes.index(name)))
    batch = next(train_loader(of_class, SMALL, batch=3, seed=1))
    for _, rgb, flow in each(table, batch):
        inner = flow[:, :, 8:-8, 8:-8] * 20
        np.testing.assert_allclose(np.median(inner, (1, 2, 3)), motion, atol=0.16)
        shift = np.float32([[1, 0, motion[0]], [0, 1, motion[1]]])
        for before, after in pairwise(rgb):
            moved = cv2.warpAffine(before, shift, (SIDE, SIDE))[8:-8, 8:-8].astype(int)
            left = np.abs(moved - after[8:-8, 8:-8]).mean()
            assert left < np.abs(before.astype(int) - after)[8:-8, 8:-8].mean() / 2


def test_a_flip_mirrors_both_and_negates_dx(labelled: Path) -> None:
    table = load_table(str(labelled))
    plain = train_loader(table, SMALL, batch=8, seed=3)
    flipping = train_loader(table, WindowConfig(frames=T, crop=SIDE, hflip=True), batch=8, seed=3)
    straight, maybe = next(plain), next(flipping)
    n_flipped = 0
    for i in range(8):
        rgb, flow = straight.rgb_B3THW[i], straight.flow_B2THW[i]
        if not torch.equal(rgb, maybe.rgb_B3THW[i]):
            n_flipped += 1
            rgb = rgb.flip(-1)
            flow = flow.flip(-1) * torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1)
        assert torch.equal(rgb, maybe.rgb_B3THW[i])
        assert torch.equal(flow, maybe.flow_B2THW[i])
    assert 0 < n_flipped < 8


def test_short_clips_loop_and_repeat_their_last_flow(int16: Path) -> None:
    table, samples = unlabelled(int16), by_path(int16)
    (batch,) = eval_loader(table, WindowConfig(frames=44, crop=SIDE), batch=2)
    for path, rgb, flow in each(table, batch):
        n = samples[path].n_frames
        frames = np.arange(44) % n
        flows = np.where(frames == n - 1, n - 2, frames)
        height, width = samples[path].rgb_THW3.shape[1:3]
        top, left = (height - SIDE) // 2, (width - SIDE) // 2
        want = unit_flow(samples[path].flow_T2HW)[:, flows, top : top + SIDE, left : left + SIDE]
        np.testing.assert_allclose(flow, want, atol=2e-6)
        assert_same_picture(
            rgb, samples[path].rgb_THW3[frames, top : top + SIDE, left : left + SIDE]
        )


def test_a_stride_keeps_the_flow_to_the_next_stored_frame(int16: Path) -> None:
    table, samples = unlabelled(int16), by_path(int16)
    (batch,) = eval_loader(table, WindowConfig(frames=5, stride=4, crop=SIDE), batch=2)
    for path, rgb, flow in each(table, batch):
        frames = (samples[path].n_frames - 17) // 2 + 4 * np.arange(5)
        height, width = samples[path].rgb_THW3.shape[1:3]
        top, left = (height - SIDE) // 2, (width - SIDE) // 2
        want = unit_flow(samples[path].flow_T2HW)[:, frames, top : top + SIDE, left : left + SIDE]
        np.testing.assert_allclose(flow, want, atol=2e-6)
        assert_same_picture(
            rgb, samples[path].rgb_THW3[frames, top : top + SIDE, left : left + SIDE]
        )


def test_what_is_not_needed_is_not_there(labelled: Path) -> None:
    table = load_table(str(labelled))
    both = next(train_loader(table, SMALL, batch=2, seed=0))
    flow_only = next(train_loader(table, SMALL, batch=2, seed=0, need_rgb=False))
    rgb_only = next(train_loader(table, SMALL, batch=2, seed=0, need_flow=False))
    assert flow_only.rgb_B3THW.shape == rgb_only.flow_B2THW.shape == (2, 0)
    assert torch.equal(flow_only.flow_B2THW, both.flow_B2THW)
    assert torch.equal(rgb_only.rgb_B3THW, both.rgb_B3THW)


def test_shapes_and_memory_order(labelled: Path) -> None:
    table = load_table(str(labelled))
    batch = next(train_loader(table, SMALL, batch=2, seed=0))
    assert batch.rgb_B3THW.shape == (2, 3, T, SIDE, SIDE)
    assert batch.rgb_B3THW.is_contiguous(memory_format=torch.channels_last_3d)
    assert batch.flow_B2THW.shape == (2, 2, T, SIDE, SIDE)
    assert batch.label_B.dtype == batch.video_B.dtype == torch.int64
