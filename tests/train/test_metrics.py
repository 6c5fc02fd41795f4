"""Scores by video against sums done by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from flowprep.errors import FlowprepError
from train.common import Place
from train.data.batch import Batch
from train.metrics import ByVideo, Scores, score, two_stream

HERE = Place(0, 1, torch.device("cpu"), False)


def batch(videos: list[int], labels: list[int]) -> Batch:
    empty = torch.zeros(len(videos), 0)
    return Batch(empty, empty, torch.tensor(labels), torch.tensor(videos))


def test_views_of_a_video_are_averaged_before_anything_is_counted() -> None:
    by_video = ByVideo()
    by_video.add(batch([7, 2, 7], [1, 0, 1]), torch.tensor([[4.0, 0], [1, 0], [0, 1]]))
    by_video.add(batch([7], [1]), torch.tensor([[0.0, 5]]))
    scores = by_video.scores(HERE)
    assert scores.video_V.tolist() == [2, 7]
    assert scores.label_V.tolist() == [0, 1]
    torch.testing.assert_close(scores.logits_VK, torch.tensor([[1, 0], [4 / 3, 2]]).double())
    assert scores.top(1) == 1.0


def test_top_k_loss_and_confusion() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 6)), rng.integers(0, 5, 50)
    scores = Scores(torch.arange(50), torch.tensor(logits), torch.tensor(labels))
    rank = (logits > logits[np.arange(50), labels][:, None]).sum(1)
    assert scores.top(1) == pytest.approx((rank == 0).mean())
    assert scores.top(3) == pytest.approx((rank < 3).mean())
    assert scores.top(9) == 1.0
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert scores.loss() == pytest.approx(-np.log(p[np.arange(50), labels]).mean())
    confusion = np.zeros((6, 6), int)
    for label, row in zip(labels, logits, strict=True):
        confusion[label, row.argmax()] += 1
    np.testing.assert_array_equal(scores.confusion(), confusion)
    np.testing.assert_allclose(
        scores.per_class()[:5], np.diag(confusion)[:5] / confusion[:5].sum(1)
    )
    assert np.isnan(scores.per_class()[5])


def test_two_streams_are_the_mean_of_their_logits() -> None:
    one = Scores(torch.tensor([1, 2]), torch.tensor([[3.0, 0], [0, 1]]), torch.tensor([1, 1]))
    other = Scores(torch.tensor([1, 2]), torch.tensor([[0.0, 5], [0, 1]]), torch.tensor([1, 1]))
    both = two_stream(one, other)
    assert both.logits_VK.tolist() == [[1.5, 2.5], [0, 1]]
    assert (one.top(1), both.top(1)) == (0.5, 1.0)


def test_two_streams_are_judged_on_the_videos_that_both_saw() -> None:
    one = Scores(torch.tensor([1, 2, 5]), torch.eye(3), torch.tensor([0, 1, 2]))
    other = Scores(torch.tensor([2, 3, 5]), 3 * torch.eye(3), torch.tensor([1, 0, 2]))
    both = two_stream(one, other)
    assert both.video_V.tolist() == [2, 5]
    assert both.label_V.tolist() == [1, 2]
    assert both.logits_VK.tolist() == [[1.5, 0.5, 0], [0, 0, 2]]


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(FlowprepError, match="no video to score"):
        ByVideo().scores(HERE)


class Mean(nn.Module):
    def forward(self, x_BCTHW: torch.Tensor) -> torch.Tensor:
        return x_BCTHW.mean((2, 3, 4))


def test_a_network_is_scored_on_its_modality() -> None:
    rgb = torch.zeros(2, 3, 4, 2, 2, dtype=torch.uint8)
    rgb[0, 2], rgb[1, 0] = 255, 255
    flow = torch.zeros(2, 2, 4, 2, 2)
    flow[:, 1] = 0.5
    views = Batch(rgb, flow, torch.tensor([2, 1]), torch.tensor([0, 1]))
    seen = score(Mean(), "rgb", [views], HERE)
    assert seen.logits_VK.tolist() == [[-1, -1, 1], [1, -1, -1]]
    assert seen.top(1) == 0.5
    assert score(Mean(), "flow", [views], HERE).logits_VK.tolist() == [[0, 0.5], [0, 0.5]]


def test_a_network_that_was_training_is_scored_in_eval_mode() -> None:
    dropping = nn.Sequential(Mean(), nn.Dropout(0.5)).train()
    views = Batch(
        torch.zeros(8, 0), torch.ones(8, 2, 4, 2, 2), torch.zeros(8).long(), torch.arange(8)
    )
    assert score(dropping, "flow", [views], HERE).logits_VK.tolist() == [[1, 1]] * 8
    assert not dropping.training
