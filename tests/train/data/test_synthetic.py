"""Made-up batches: the same interface, and something to learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from train.data.loader import eval_loader, train_loader
from train.data.synthetic import MOTIONS_PX, synthetic_table
from train.data.windows import WindowConfig

SMALL = WindowConfig(frames=6, crop=64)


def test_the_table_has_classes_and_splits() -> None:
    table = synthetic_table()
    sizes = [table.only(split).videos_per_class() for split in ("train", "val", "test")]
    assert table.classes == list(MOTIONS_PX)
    assert [set(size) for size in sizes] == [{32}, {4}, {4}]
    assert not set(table.only("train").video_N) & set(table.only("val").video_N)


def test_flow_and_pictures_move_as_the_class_says() -> None:
    table = synthetic_table()
    batch = next(train_loader(table.only("train"), SMALL, batch=6, seed=0))
    for rgb, flow, label in zip(batch.rgb_B3THW, batch.flow_B2THW, batch.label_B, strict=True):
        dx, dy = list(MOTIONS_PX.values())[int(label)]
        np.testing.assert_allclose(flow.mean((1, 2, 3)) * 20, (dx, dy), atol=0.05)
        moved = rgb[:, :-1].roll((dy, dx), (2, 3))
        assert torch.equal(moved[..., 4:-4, 4:-4], rgb[:, 1:, 4:-4, 4:-4])


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_it_repeats() -> None:
    table = synthetic_table().only("val")
    alone = [b.rgb_B3THW for b in eval_loader(table, SMALL, batch=8)]
    worker = [b.rgb_B3THW for b in eval_loader(table, SMALL, batch=8, workers=1)]
    assert len(alone) == 2
    assert all(torch.equal(a, b) for a, b in zip(alone, worker, strict=True))
