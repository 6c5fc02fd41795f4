"""What a student learns beside its labels.

d3d.md of the sources: the form of D3D's loss (squared error of the logits) is known, its weight and
whether it is a mean or a sum over classes are not. Here it is the mean.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def mse_logits(student_BK: Tensor, teacher_BK: Tensor, center: bool = False) -> Tensor:
    """Squared difference of the logits, mean over clips and classes (D3D).

    With `center` each clip's mean over the classes is taken off both first: a shift of all logits
    changes no probability.
    """
    if center:
        student_BK = student_BK - student_BK.mean(1, keepdim=True)
        teacher_BK = teacher_BK - teacher_BK.mean(1, keepdim=True)
    return F.mse_loss(student_BK, teacher_BK)


def kl(student_BK: Tensor, teacher_BK: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of the softmax at temperature T, mean over clips.

    Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015.
    """
    log_student = F.log_softmax(student_BK / temperature, 1)
    log_teacher = F.log_softmax(teacher_BK / temperature, 1)
    divergence = F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def mse_features(student_BC: Tensor, teacher_BC: Tensor) -> Tensor:
    """Squared difference of the pooled features, mean over clips and channels (MARS)."""
    return F.mse_loss(student_BC, teacher_BC)


@torch.no_grad()
def agreement(student_BK: Tensor, teacher_BK: Tensor) -> dict[str, Tensor]:
    """Scale of both logits, and the share of clips on which both name the same class."""
    same = student_BK.argmax(1) == teacher_BK.argmax(1)
    return {
        "student_logit_rms": student_BK.square().mean().sqrt(),
        "teacher_logit_rms": teacher_BK.square().mean().sqrt(),
        "agreement": same.float().mean(),
    }
