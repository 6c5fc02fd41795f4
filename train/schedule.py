"""The learning rate as a function of the step, and the optimiser it drives."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from train.config import Optim
from train.models.base import head_names
from train.trained import Trained


def rate(step: int, total: int, optim: Optim) -> float:
    """The learning rate of step 0..total-1: a linear rise, then cosine to zero or two drops."""
    rise = math.ceil(optim.warmup * total)
    if step < rise:
        return optim.lr * (step + 1) / rise
    done = (step - rise) / max(total - rise, 1)
    if optim.schedule == "cosine":
        return optim.lr * (1 + math.cos(math.pi * done)) / 2
    return optim.lr * (0.1 ** ((done >= 3 / 4) + (done >= 7 / 8)))


def make_optimizer(trained: nn.Module, head: set[str], optim: Optim, backbone: float) -> Optimizer:
    """SGD or AdamW over what learns, in four groups: backbone or not, decayed or not.

    `head` names the parameters that learn at the full rate, the others at `backbone` times it.
    Weights of convolutions and matrices decay; biases and batch norm, which are vectors, do not.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in trained.named_parameters():
        if parameter.requires_grad:
            scale = 1.0 if name in head else backbone
            decay = optim.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((scale, decay), []).append(parameter)
    listed = [
        {"params": found, "scale": scale, "weight_decay": decay}
        for (scale, decay), found in groups.items()
    ]
    if optim.optimizer == "adamw":
        return AdamW(listed, lr=optim.lr)
    return SGD(listed, lr=optim.lr, momentum=optim.momentum, nesterov=optim.momentum > 0)


def set_rate(optimizer: Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]


def full_rate_names(trained: Trained) -> set[str]:
    """Names in `trained` of the classifier and of everything outside the backbone."""
    inside = "tapped.model."
    names = {name for name, _ in trained.named_parameters()}
    outside = {name for name in names if not name.startswith(inside)}
    return outside | {inside + name for name in head_names(trained.backbone)}
