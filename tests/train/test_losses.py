"""Losses and their gradients on the logits against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from train.losses import agreement, kl, mse_features, mse_logits

B, K = 5, 7


@pytest.fixture
def logits() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.normal(0, 2, (B, K)), rng.normal(1, 3, (B, K))


def value_and_gradient(loss, student, teacher, *args):
    tensor = torch.tensor(student, requires_grad=True)
    value = loss(tensor, torch.tensor(teacher), *args)
    value.backward()
    return value.item(), tensor.grad.numpy()


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_mse_of_logits_is_a_mean_over_clips_and_classes(logits) -> None:
    student, teacher = logits
    value, gradient = value_and_gradient(mse_logits, student, teacher)
    assert value == pytest.approx(np.square(student - teacher).sum() / (B * K), rel=1e-12)
    np.testing.assert_allclose(gradient, 2 * (student - teacher) / (B * K), rtol=1e-12)


def test_centred_logits_ignore_a_shift_of_all_classes(logits) -> None:
    student, teacher = logits
    shift = np.arange(B)[:, None] * 10.0
    plain, _ = value_and_gradient(mse_logits, student, teacher, True)
    shifted, gradient = value_and_gradient(mse_logits, student + shift, teacher - 3 * shift, True)
    assert shifted == pytest.approx(plain, rel=1e-9)
    np.testing.assert_allclose(gradient.sum(1), 0, atol=1e-12)
    assert value_and_gradient(mse_logits, student + shift, teacher)[0] > 2 * plain


def test_kl_is_that_of_the_softened_distributions(logits) -> None:
    student, teacher = logits
    for temperature in (1.0, 4.0):
        p, q = softmax(teacher / temperature), softmax(student / temperature)
        value, gradient = value_and_gradient(kl, student, teacher, temperature)
        expected = temperature**2 * (p * np.log(p / q)).sum() / B
        assert value == pytest.approx(expected, rel=1e-9)
        np.testing.assert_allclose(gradient, temperature * (q - p) / B, rtol=1e-7, atol=1e-12)
        assert value_and_gradient(kl, teacher, teacher, temperature)[0] == pytest.approx(
            0, abs=1e-9
        )


def test_mse_of_features_is_a_mean_over_clips_and_channels(logits) -> None:
    student, teacher = logits
    value, _ = value_and_gradient(mse_features, student, teacher)
    assert value == pytest.approx(np.square(student - teacher).mean(), rel=1e-12)


def test_agreement_counts_equal_classes_and_tells_both_scales() -> None:
    student = torch.tensor([[3.0, 0.0], [0.0, 4.0], [1.0, 0.0], [0.0, 1.0]])
    teacher = torch.tensor([[9.0, 0.0], [5.0, 0.0], [0.0, 2.0], [0.0, 2.0]])
    told = agreement(student, teacher)
    assert told["agreement"] == 0.5
    assert told["student_logit_rms"] == pytest.approx(np.sqrt(27 / 8))
    assert told["teacher_logit_rms"] == pytest.approx(np.sqrt(114 / 8))
