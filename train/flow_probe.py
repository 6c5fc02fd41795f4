"""Flow decoded from the features of a network: training the decoder, and its errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

from flowprep.errors import FlowprepError
from train.common import Place
from train.data.batch import FLOW_CLIP_PX, Batch, network_input
from train.flow_picture import Shown, middle_step
from train.metrics import to_device
from train.models.base import VideoModel
from train.models.decoders import (
    build_decoder,
    end_point_errors,
    epe,
    feature_channels,
    flow_target,
)

N_SHOWN = 6
"""Clips in a picture."""


@dataclass(frozen=True)
class Errors:
    """Mean end-point errors over all cells of all clips: of a decoder, and of two constants."""

    epe_px: float
    zero_flow_epe_px: float
    mean_flow_epe_px: float

    @property
    def left(self) -> float:
        """The decoder's error as a share of that of zero flow."""
        return self.epe_px / self.zero_flow_epe_px


class ErrorSums:
    """Adds up errors over batches."""

    def __init__(self, mean_flow_2: Tensor) -> None:
        """`mean_flow_2`: the constant to compare with, pixels."""
        self._mean_flow = mean_flow_2.float().reshape(1, 2, 1, 1, 1)
        self._sum_3, self._n_cells = torch.zeros(3, dtype=torch.float64), 0

    def add(self, flow_B2THW: Tensor, target_B2THW: Tensor) -> None:
        """Take a batch of predictions and targets, pixels."""
        constants = (torch.zeros(()), self._mean_flow)
        guesses = (flow_B2THW, *(c.to(flow_B2THW.device) for c in constants))
        errors = [end_point_errors(guess, target_B2THW) for guess in guesses]
        self._sum_3 += torch.stack([e.sum(dtype=torch.float64) for e in errors]).cpu()
        self._n_cells += target_B2THW[:, 0].numel()

    def value(self) -> Errors:
        """The means so far."""
        return Errors(*(self._sum_3 / self._n_cells).tolist())


class MeanFlow:
    """The mean of dx and of dy over all cells seen."""

    def __init__(self) -> None:
        self._sum_2, self._n_cells = torch.zeros(2, dtype=torch.float64), 0

    def add(self, target_B2THW: Tensor) -> None:
        """Take a batch of targets, pixels."""
        self._sum_2 += target_B2THW.sum((0, 2, 3, 4), dtype=torch.float64).cpu()
        self._n_cells += target_B2THW[:, 0].numel()

    def value(self) -> Tensor:
        """float64 [2], pixels."""
        return self._sum_2 / self._n_cells


class Standardize(nn.Module):
    """Brings each channel to mean 0 and deviation 1, as measured once: on the first training batch.

    A fixed affine map that the decoder's first layer could learn too. It makes one learning rate
    fit all layers and networks, whose features differ in size by orders of magnitude.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1, 1))
        self.register_buffer("deviation", torch.ones(1, channels, 1, 1, 1))
        self._measured = False

    def forward(self, feature_BCTHW: Tensor) -> Tensor:
        if self.training and not self._measured:
            self._measure(feature_BCTHW.detach().float())
        scaled: Tensor = (feature_BCTHW.float() - self.mean) / self.deviation
        return scaled

    def _measure(self, feature_BCTHW: Tensor) -> None:
        deviation, mean = torch.std_mean(feature_BCTHW, (0, 2, 3, 4), correction=0, keepdim=True)
        self.mean = mean
        self.deviation = torch.where(deviation > 0, deviation, 1.0)
        self._measured = True


class FlowProbe(nn.Module):
    """A copy of a network up to a layer, fixed unless `finetune`, and a decoder behind it."""

    def __init__(self, net: VideoModel, layer: str, decoder: str, finetune: bool) -> None:
        super().__init__()
        channels = feature_channels(net, layer)
        self.decoder = build_decoder(decoder, channels)
        self.standardize = Standardize(channels)
        self.backbone = up_to(net, layer).requires_grad_(finetune)
        self._finetune = finetune

    def train(self, mode: bool = True) -> FlowProbe:
        """A fixed backbone stays in eval mode."""
        super().train(mode)
        self.backbone.train(mode and self._finetune)
        return self

    def forward(self, rgb_B3THW: Tensor) -> Tensor:
        """Float [B, 3, T, H, W] in -1..1 -> flow float32 [B, 2, T', H', W'], pixels."""
        flow: Tensor = self.decoder(self.standardize(self.backbone(rgb_B3THW)))
        return flow.float()


def up_to(net: VideoModel, layer: str) -> nn.Module:
    """A copy of the layers up to a named one, which is the last."""
    names = [name for name, _ in net.layers.named_children()]
    last = names.index(net.taps[layer].removeprefix("layers."))
    return deepcopy(net.layers[: last + 1])


def fit(probe: FlowProbe, batches: Iterator[Batch], steps: int, lr: float, here: Place) -> Tensor:
    """Minimise the end-point error by Adam, its rate falling from `lr` to 0 as a cosine.

    Returns the mean flow of the targets, float64 [2], pixels.
    """
    optimizer = Adam([p for p in probe.parameters() if p.requires_grad], lr=lr)
    schedule = CosineAnnealingLR(optimizer, steps)
    mean, hidden = MeanFlow(), not Console().is_terminal
    probe.train()
    for _ in track(range(steps), "training", transient=True, disable=hidden):
        flow, target = _predict(probe, next(batches), here)
        mean.add(target)
        optimizer.zero_grad(set_to_none=True)
        epe(flow, target).backward()
        optimizer.step()
        schedule.step()
    return mean.value()


def _predict(probe: FlowProbe, batch: Batch, here: Place) -> tuple[Tensor, Tensor]:
    """What is predicted and what it should be, float32 [B, 2, T', H', W'] in pixels."""
    batch = to_device(batch, here)
    with here.autocast():
        flow = probe(network_input(batch, "rgb"))
    return flow, flow_target(batch.flow_B2THW * FLOW_CLIP_PX, flow.shape[2:])


@torch.no_grad()
def judge(
    probe: FlowProbe, batches: Iterable[Batch], n_clips: int, mean_flow_2: Tensor, here: Place
) -> tuple[Errors, list[Shown]]:
    """Errors over `n_clips` clips, and N_SHOWN of them to show, evenly from first to last.

    Raises FlowprepError where training went astray or nothing moves.
    """
    probe.eval()
    wanted = np.unique(np.linspace(0, n_clips - 1, N_SHOWN).round())
    sums, n_seen = ErrorSums(mean_flow_2), 0
    shown: list[Shown] = []
    for batch in batches:
        flow, target = _predict(probe, batch, here)
        sums.add(flow, target)
        places = np.flatnonzero(np.isin(n_seen + np.arange(len(flow)), wanted))
        shown += [middle_step(batch.rgb_B3THW[i], target[i], flow[i]) for i in places]
        n_seen += len(flow)
    return _checked(sums.value()), shown


def _checked(errors: Errors) -> Errors:
    if not np.isfinite(errors.epe_px):
        raise FlowprepError(f"the error of the decoder is {errors.epe_px}", "give a lower --lr")
    if not errors.zero_flow_epe_px:
        raise FlowprepError("nothing moves in the split val", "probe on videos with motion")
    return errors
