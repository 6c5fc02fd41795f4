"""What one step minimises: the trained network around the backbone, and the loss on a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from flowprep.errors import FlowprepError
from train.config import DistillConfig
from train.data.batch import FLOW_CLIP_PX, Batch, network_input
from train.losses import agreement, kl, mse_features, mse_logits
from train.metrics import Scores
from train.models.base import Tapped, VideoModel
from train.models.decoders import build_decoder, feature_channels, flow_target
from train.trained import Outputs, Trained

Terms = dict[str, Tensor]
"""Named parts of a loss; "loss" is what is minimised, the rest is logged."""


class Objective(Protocol):
    """What a step minimises. `trained` holds all weights that learn."""

    trained: Trained

    def __call__(self, forward: Callable[[Tensor], Outputs], batch: Batch) -> Terms:
        """The terms of a batch on the device. `forward` is `trained`, perhaps wrapped by DDP."""
        ...


class Classify:
    """Cross-entropy on one modality: the teacher, and networks to compare with."""

    def __init__(self, net: VideoModel, modality: str) -> None:
        self.trained = Trained(net)
        self._modality = modality

    def __call__(self, forward: Callable[[Tensor], Outputs], batch: Batch) -> Terms:
        logits, _, _ = forward(network_input(batch, self._modality))
        return {"loss": F.cross_entropy(logits, batch.label_B)}


class Distill:
    """Cross-entropy of an RGB student plus what a frozen teacher says of the same windows."""

    def __init__(self, student: VideoModel, teacher: VideoModel, config: DistillConfig) -> None:
        taps = ("pool",) if config.loss == "mse-features" else ()
        self.trained = Trained(student, taps)
        self._teacher = Tapped(teacher.eval().requires_grad_(False), taps)
        self._config = config

    def __call__(self, forward: Callable[[Tensor], Outputs], batch: Batch) -> Terms:
        logits, features, _ = forward(network_input(batch, "rgb"))
        taught, taught_features = self._taught(batch)
        match = self._match(logits, taught, features, taught_features)
        terms = _weighed(F.cross_entropy(logits, batch.label_B), match, self._config.lambda_)
        return terms | agreement(logits, taught)

    @torch.no_grad()
    def _taught(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The teacher's logits, float32, and features."""
        taught, features = self._teacher(network_input(batch, self._config.teacher_sees))
        return taught.float(), features

    def _match(
        self, logits: Tensor, taught: Tensor, mine: dict[str, Tensor], theirs: dict[str, Tensor]
    ) -> Tensor:
        if self._config.loss == "kl":
            return kl(logits, taught, self._config.temperature)
        if self._config.loss == "mse-features":
            return mse_features(mine["pool"].float(), theirs["pool"].float())
        return mse_logits(logits, taught, self._config.center_logits)


class DistillShuffled(Distill):
    """Distill, but what the teacher says is of another training video of the same class.

    A control: what is left of the teacher is what its classes have in common.
    """

    def __init__(
        self, student: VideoModel, teacher: VideoModel, config: DistillConfig, said: Scores
    ) -> None:
        """`said`: the teacher's logits of every training video. Raises FlowprepError."""
        super().__init__(student, teacher, config)
        if (said.label_V.bincount() == 1).any():
            raise FlowprepError(
                "--teacher-logits shuffled: a class has one training video",
                "give a dataset with two or more of each",
            )
        self._said = said

    @torch.no_grad()
    def _taught(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Drawn from torch's state, which each step seeds: the same when a run goes on."""
        said = self._said
        label_B1, video_B1 = batch.label_B.cpu()[:, None], batch.video_B.cpu()[:, None]
        others_BV = (said.label_V == label_B1) & (said.video_V != video_B1)
        drawn_B = torch.multinomial(others_BV.float(), 1)[:, 0]
        return said.logits_VK[drawn_B].float().to(batch.label_B.device), {}


class PredictFlow:
    """Cross-entropy of an RGB network plus the error of the flow decoded from one of its layers."""

    def __init__(self, student: VideoModel, config: DistillConfig) -> None:
        channels = feature_channels(student, config.flow_layer)
        decoder = build_decoder(config.flow_decoder, channels)
        self.trained = Trained(student, (config.flow_layer,), decoder)
        self._lambda = config.lambda_

    def __call__(self, forward: Callable[[Tensor], Outputs], batch: Batch) -> Terms:
        logits, _, flow = forward(network_input(batch, "rgb"))
        assert flow is not None
        target = flow_target(batch.flow_B2THW * FLOW_CLIP_PX, flow.shape[2:])
        match = (flow.float() - target).abs().mean()
        return _weighed(F.cross_entropy(logits, batch.label_B), match, self._lambda)


def _weighed(task: Tensor, match: Tensor, weight: float) -> Terms:
    return {"loss": task + weight * match, "task_loss": task.detach(), "match_loss": match.detach()}
