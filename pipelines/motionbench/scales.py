"""How large the experiment is: what is rendered, trained and judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from train.config import Net, Optim

Space = Literal["P", "C"]
"""Label spaces: 12 motions, or 4 palettes x 12 motions."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """One size of the experiment. Numbers of videos are multiples of 48, so that classes balance.

    A window is all frames of a clip but one, so that training sees two starts of each.
    """

    name: str
    side: int  # of the rendered picture, pixels
    n_frames: int  # of a clip
    crop: int  # of what the networks see
    n_train: tuple[int, ...]  # of the learning curves; the last is the main one, the first searches
    n_val: int
    n_test: int
    seeds: tuple[int, ...]
    net: Net
    optim: Optim  # epochs are those of the largest training set; smaller ones take as many steps
    curve_spaces: tuple[Space, ...]  # label spaces of the learning curves
    biases: tuple[float, ...] = ()  # static bias of further training sets
    probe_steps: int = 200
    probe_layers: tuple[str, ...] = ("1a", "2c", "3A", "3c", "4f", "5c")
    gate_clips: int = 480

    @property
    def window(self) -> int:
        """Frames that a network sees."""
        return self.n_frames - 1

    @property
    def steps(self) -> float:
        """Optimiser steps of a run on the largest training set."""
        return self.optim.epochs * self.n_train[-1] / self.optim.batch


TINY = Scale(
    name="tiny",
    side=48,
    n_frames=5,
    crop=40,
    n_train=(96, 144),
    n_val=48,
    n_test=48,
    seeds=(1,),
    net=Net(width=0.1),
    optim=Optim(epochs=1, batch=16, precise_bn=2),
    curve_spaces=("P",),
    probe_steps=4,
    probe_layers=("1a", "3A"),
    gate_clips=48,
)
SMALL = Scale(
    name="small",
    side=48,
    n_frames=9,
    crop=40,
    n_train=(960, 1920),
    n_val=192,
    n_test=960,
    seeds=(1, 2, 3),
    net=Net(width=0.25),
    optim=Optim(epochs=8.3, batch=32, precise_bn=4),
    curve_spaces=("P",),
    probe_steps=120,
)
FULL = Scale(
    name="full",
    side=128,
    n_frames=17,
    crop=112,
    n_train=(480, 1200, 2400, 4800),
    n_val=1200,
    n_test=4800,
    seeds=(1, 2, 3),
    net=Net(),
    optim=Optim(epochs=20, batch=32),
    curve_spaces=("P", "C"),
    biases=(0.5, 0.9),
    probe_steps=1000,
)
SCALES = {scale.name: scale for scale in (TINY, SMALL, FULL)}
