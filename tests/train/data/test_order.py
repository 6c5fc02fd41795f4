"""Which window comes when: the seed and the step decide, and nothing else."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from flowprep.errors import FlowprepError
from train.data.batch import Batch
from train.data.loader import Batches, eval_loader, train_loader
from train.data.stream import SamplesOfVideos, Stream
from train.data.table import Table, load_table
from train.data.windows import WindowConfig

SMALL = WindowConfig(frames=4, crop=32, hflip=True)

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),  # fewer cores than workers
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def table(labelled: Path) -> Table:
    return load_table(str(labelled), val_share=0)


def train(table: Table, n: int, **options: int) -> list[Batch]:
    batches = train_loader(table, SMALL, **{"batch": 4, "seed": 7, **options})
    try:
        return list(islice(batches, n))
    finally:
        batches.close()


def assert_equal(a: list[Batch], b: list[Batch]) -> None:
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert all(torch.equal(s, t) for s, t in zip(x, y, strict=True))


def test_every_epoch_shows_each_video_once(table: Table) -> None:
    """Nine videos in batches of four: epochs end inside of batches, and nothing is dropped."""
    videos = torch.cat([b.video_B for b in train(table, 9)]).tolist()
    epochs = [videos[i : i + 9] for i in range(0, 36, 9)]
    assert all(sorted(epoch) == list(range(9)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_other_seeds_give_other_orders(table: Table) -> None:
    one, other = (torch.cat([b.video_B for b in train(table, 2, seed=s)]) for s in (0, 1))
    assert not torch.equal(one, other)


def test_workers_change_nothing(table: Table) -> None:
    alone = train(table, 6)
    assert_equal(train(table, 6, workers=1), alone)
    assert_equal(train(table, 6, workers=2), alone)


def test_the_number_of_processes_changes_nothing(table: Table) -> None:
    alone = train(table, 5)
    ranks = [train(table, 5, rank=r, world=2) for r in range(2)]
    parts = [
        Batch(*(torch.cat(ts) for ts in zip(*bs, strict=True))) for bs in zip(*ranks, strict=True)
    ]
    assert_equal(parts, alone)


def test_starting_at_a_step_gives_the_rest(table: Table) -> None:
    assert_equal(train(table, 4, start_step=3), train(table, 7)[3:])


def test_a_batch_that_does_not_divide_is_refused(table: Table) -> None:
    with pytest.raises(FlowprepError, match="--batch 4 does not divide among 3"):
        train(table, 1, world=3)


def test_the_windows_of_a_video_differ_from_epoch_to_epoch(table: Table) -> None:
    batches = train(table, 2, batch=9)
    first, second = (b.rgb_B3THW[b.video_B.argsort()] for b in batches)
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_samples_of_a_video_are_drawn_by_length() -> None:
    samples = SamplesOfVideos(np.array([3, 1, 3, 3]), np.array([10, 5, 60, 30]))
    assert len(samples) == 2
    rng = np.random.default_rng(0)
    assert {samples.draw(0, rng) for _ in range(20)} == {1}
    counts = Counter(samples.draw(1, rng) for _ in range(3000))
    assert sorted(counts) == [0, 2, 3]
    assert [round(counts[i] / 300) for i in (0, 2, 3)] == [1, 6, 3]


def test_the_order_reaches_far() -> None:
    stream = Stream(1000, 0)
    assert sorted(stream.video(p) for p in range(10**9, 10**9 + 1000)) == list(range(1000))


def values(batches: Batches) -> list[bytes]:
    return [rgb.numpy().tobytes() for batch in batches for rgb in batch.rgb_B3THW]


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_evaluation_sees_every_sample_once(table: Table, world: int) -> None:
    """18 samples do not divide among 5 processes; some have fewer batches, and none is padded."""
    keys, videos = Counter[bytes](), Counter[int]()
    for rank in range(world):
        for batch in eval_loader(table, SMALL, batch=4, rank=rank, world=world):
            videos.update(batch.video_B.tolist())
            keys.update(rgb.numpy().tobytes() for rgb in batch.rgb_B3THW)
    assert videos == Counter({video: 2 for video in range(9)})
    assert len(keys) == 18


def test_evaluation_gives_all_views(table: Table) -> None:
    one = table.rows(np.array([0]))
    batches = list(eval_loader(one, SMALL, batch=4, n_clips=3, n_crops=2))
    assert [len(b.label_B) for b in batches] == [4, 2]
    assert len({rgb.numpy().tobytes() for b in batches for rgb in b.rgb_B3THW}) == 6


def test_evaluation_workers_change_nothing(table: Table) -> None:
    alone = values(eval_loader(table, SMALL, batch=4))
    assert values(eval_loader(table, SMALL, batch=4, workers=2)) == alone


def test_more_processes_than_samples(table: Table) -> None:
    one = table.rows(np.array([0]))
    assert len(values(eval_loader(one, SMALL, batch=4, rank=0, world=2))) == 1
    assert values(eval_loader(one, SMALL, batch=4, rank=1, world=2)) == []
