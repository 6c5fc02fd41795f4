"""A backbone and what learns with it."""

from __future__ import annotations

from torch import Tensor, nn

from train.models.base import Tapped, VideoModel

Outputs = tuple[Tensor, dict[str, Tensor], Tensor | None]
"""Logits [B, K], tapped features by name, predicted flow [B, 2, T', H', W'] in pixels."""


class Trained(nn.Module):
    """A backbone with taps and, for multi-task training, a decoder of flow: one forward pass."""

    def __init__(
        self, net: VideoModel, taps: tuple[str, ...] = (), decoder: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.tapped = Tapped(net, taps)
        self.decoder = decoder

    @property
    def backbone(self) -> VideoModel:
        return self.tapped.model

    def forward(self, input_BCTHW: Tensor) -> Outputs:
        logits, features = self.tapped(input_BCTHW)
        flow = self.decoder(*features.values()) if self.decoder is not None else None
        return logits.float(), features, flow
