"""Accuracy by video: the logits of all views of all clips of a video are averaged first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowprep.errors import FlowprepError
from train.common import Place, gather
from train.data.batch import Batch, network_input


@dataclass(frozen=True)
class Scores:
    """Mean logits of each video: `video_V`, `label_V` int64, the former ascending; float64."""

    video_V: Tensor
    logits_VK: Tensor
    label_V: Tensor

    def __len__(self) -> int:
        return len(self.video_V)

    def top(self, k: int) -> float:
        """Share of videos whose class is among the k highest logits."""
        best = self.logits_VK.topk(min(k, self.logits_VK.shape[1]), dim=1).indices
        return (best == self.label_V[:, None]).any(1).double().mean().item()

    def loss(self) -> float:
        """Cross-entropy of the mean logits, nats."""
        return F.cross_entropy(self.logits_VK, self.label_V).item()

    def confusion(self) -> np.ndarray:
        """Videos by class (row) and predicted class (column), int64 [K, K]."""
        n_classes = self.logits_VK.shape[1]
        cells = self.label_V * n_classes + self.logits_VK.argmax(1)
        counts = torch.bincount(cells, minlength=n_classes**2)
        return counts.reshape(n_classes, n_classes).numpy()

    def per_class(self) -> np.ndarray:
        """Share of each class's videos that are named right, float64 [K]; nan where none."""
        confusion = self.confusion()
        with np.errstate(invalid="ignore"):
            return np.diag(confusion) / confusion.sum(1)


class ByVideo:
    """Adds up logits by video."""

    def __init__(self) -> None:
        self._sums: dict[int, tuple[Tensor, int, int]] = {}

    def add(self, batch: Batch, logits_BK: Tensor) -> None:
        """Take the logits of a batch of views."""
        rows = zip(
            batch.video_B.tolist(), logits_BK.double().cpu(), batch.label_B.tolist(), strict=True
        )
        for video, logits, label in rows:
            total, count, _ = self._sums.get(video, (torch.zeros_like(logits), 0, label))
            self._sums[video] = total + logits, count + 1, label

    def scores(self, here: Place) -> Scores:
        """The scores over all processes, the same in each.

        Raises FlowprepError when no video was seen.
        """
        merged: dict[int, tuple[Tensor, int, int]] = {}
        for part in gather(self._sums, here):
            for video, (total, count, label) in part.items():
                before, n, _ = merged.get(video, (torch.zeros_like(total), 0, label))
                merged[video] = before + total, n + count, label
        if not merged:
            raise FlowprepError(
                "there is no video to score: all were left out as damaged",
                "run flowprep verify on the dataset, and extract again what it names",
            )
        videos = sorted(merged)
        return Scores(
            torch.tensor(videos),
            torch.stack([merged[v][0] / merged[v][1] for v in videos]),
            torch.tensor([merged[v][2] for v in videos]),
        )


def to_device(batch: Batch, here: Place) -> Batch:
    return Batch(*(part.to(here.device, non_blocking=True) for part in batch))


@torch.no_grad()
def score(net: nn.Module, modality: str, batches: Iterable[Batch], here: Place) -> Scores:
    """Run a network over views and average by video. The network is left in eval mode."""
    net.eval()
    by_video = ByVideo()
    for batch in batches:
        moved = to_device(batch, here)
        with here.autocast():
            logits = net(network_input(moved, modality))
        by_video.add(batch, logits.float())
    return by_video.scores(here)


def two_stream(one: Scores, other: Scores) -> Scores:
    """Mean of the logits of two networks, over the videos that both saw."""
    mine, theirs = (torch.isin(a.video_V, b.video_V) for a, b in ((one, other), (other, one)))
    logits_VK = (one.logits_VK[mine] + other.logits_VK[theirs]) / 2
    return Scores(one.video_V[mine], logits_VK, one.label_V[mine])
