"""One optimiser step against NumPy and against torch by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from flowprep.errors import FlowprepError
from train.common import Place
from train.config import DistillConfig, Loss, Optim
from train.data.batch import Batch, network_input
from train.models.base import ModelConfig, VideoModel, build
from train.objective import Classify, Distill, Objective, PredictFlow
from train.step import Stepper, measure_statistics

B, K, T, SIDE = 4, 3, 4, 32


def net(channels: int, seed: int) -> VideoModel:
    torch.manual_seed(seed)
    made = build(ModelConfig(in_channels=channels, n_classes=K, width=0.1, dropout=0.0))
    for norm in (m for m in made.modules() if isinstance(m, nn.BatchNorm3d)):
        norm.running_mean.uniform_(-0.1, 0.1)
        norm.running_var.uniform_(0.5, 1.5)
    return made


@pytest.fixture
def batch() -> Batch:
    g = torch.Generator().manual_seed(5)
    return Batch(
        torch.randint(0, 256, (B, 3, T, SIDE, SIDE), generator=g, dtype=torch.uint8),
        torch.rand(B, 2, T, SIDE, SIDE, generator=g) - 0.5,
        torch.tensor([0, 2, 1, 2]),
        torch.arange(B),
    )


def config(loss: Loss = "mse-logits", **optim) -> DistillConfig:
    return DistillConfig(loss=loss, lambda_=3.0, temperature=2.0, optim=Optim(**optim))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_a_d3d_step_is_that_of_numpy_on_the_logits(batch: Batch) -> None:
    """Loss and gradient at the logits, with cross-entropy and the frozen teacher in eval mode."""
    student, teacher = net(3, 1), net(2, 2)
    objective = Distill(student, teacher, config())
    seen: list[Tensor] = []

    def forward(x: Tensor):
        logits, features, flow = objective.trained(x)
        logits.retain_grad()
        seen.append(logits)
        return logits, features, flow

    terms = objective(forward, batch)
    terms["loss"].backward()
    with torch.no_grad():
        taught = teacher.eval()(batch.flow_B2THW).double().numpy()
    logits, labels = seen[0].detach().double().numpy(), np.eye(K)[batch.label_B.numpy()]
    task = -(labels * np.log(softmax(logits))).sum() / B
    match = np.square(logits - taught).sum() / (B * K)
    assert terms["loss"].item() == pytest.approx(task + 3.0 * match, rel=1e-5)
    assert terms["task_loss"].item() == pytest.approx(task, rel=1e-5)
    assert terms["match_loss"].item() == pytest.approx(match, rel=1e-5)
    gradient = (softmax(logits) - labels) / B + 3.0 * 2 * (logits - taught) / (B * K)
    np.testing.assert_allclose(seen[0].grad.numpy(), gradient, rtol=1e-4, atol=1e-7)


def softened_divergence(student: np.ndarray, teacher: np.ndarray) -> float:
    """KL(teacher || student) at temperature 2, times 4."""
    p, q = softmax(teacher / 2), softmax(student / 2)
    return float(4 * (p * np.log(p / q)).sum() / B)


def centred_difference(student: np.ndarray, teacher: np.ndarray) -> float:
    apart = student - teacher
    return float(np.square(apart - apart.mean(1, keepdims=True)).mean())


@pytest.mark.parametrize(
    ("loss", "center", "by_hand"),
    [("kl", False, softened_divergence), ("mse-logits", True, centred_difference)],
)
def test_the_loss_asked_for_is_the_one_minimised(
    loss: Loss, center: bool, by_hand: Callable[..., float], batch: Batch
) -> None:
    """With student and teacher in their roles, and the options of that loss."""
    student, teacher = net(3, 1).eval(), net(2, 2).eval()
    with torch.no_grad():
        for one, bias in ((student, [4.0, 0.0, 1.0]), (teacher, [0.0, 6.0, 5.0])):
            one.classifier.conv.bias.copy_(torch.tensor(bias))
        logits = student(network_input(batch, "rgb")).double().numpy()
        taught = teacher(batch.flow_B2THW).double().numpy()
    objective = Distill(student, teacher, replace(config(loss), center_logits=center))
    told = objective(objective.trained, batch)["match_loss"].item()
    assert told == pytest.approx(by_hand(logits, taught), rel=1e-4)
    assert told != pytest.approx(by_hand(taught, logits), rel=1e-2) or center


@pytest.mark.parametrize("loss", ["mse-logits", "kl", "mse-features"])
def test_a_teacher_never_changes(loss: Loss, batch: Batch, here: Place) -> None:
    student, teacher = net(3, 1), net(2, 2)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    stepper = Stepper(config(loss, lr=0.1), here, Distill(student, teacher, config(loss)), 3)
    for _ in range(3):
        stepper.take(batch)
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(p.requires_grad for p in teacher.parameters())


def test_features_are_matched_at_the_pool(batch: Batch) -> None:
    student, teacher = net(3, 1).eval(), net(2, 2)
    objective = Distill(student, teacher, config("mse-features"))
    terms = objective(objective.trained, batch)
    mine = student.layers(network_input(batch, "rgb")).mean((2, 3, 4))
    theirs = teacher.layers(batch.flow_B2THW).mean((2, 3, 4))
    assert terms["match_loss"].item() == pytest.approx((mine - theirs).square().mean().item())


def test_predicted_flow_is_judged_in_pixels(batch: Batch) -> None:
    """An untrained decoder predicts zero, so the loss is the mean length of the target's parts."""
    objective = PredictFlow(net(3, 1), replace(config("flow"), flow_layer="2c"))
    terms = objective(objective.trained, batch)
    target = batch.flow_B2THW.reshape(B, 2, T // 2, 2, 8, 4, 8, 4).mean((3, 5, 7)) * 20
    assert terms["match_loss"].item() == pytest.approx(target.abs().mean().item(), rel=1e-5)
    terms["loss"].backward()
    assert objective.trained.decoder is not None
    assert any(p.grad.abs().sum() > 0 for p in objective.trained.decoder.parameters())


def objectives() -> dict[str, Callable[[], Objective]]:
    return {
        "classify": lambda: Classify(net(2, 1), "flow"),
        "distill": lambda: Distill(net(3, 1), net(2, 2), replace(config(), lambda_=0.1)),
        "flow": lambda: PredictFlow(net(3, 1), config("flow")),
    }


@pytest.mark.parametrize("name", objectives())
def test_a_few_steps_on_one_batch_lower_the_loss(name: str, batch: Batch, here: Place) -> None:
    stepper = Stepper(config(lr=0.01), here, objectives()[name](), 12)
    losses = [stepper.take(batch)["loss"].item() for _ in range(12)]
    assert losses[-1] < 0.9 * losses[0]


def test_micro_batches_add_up_to_the_batch(batch: Batch, here: Place) -> None:
    """Without batch norm's coupling, which eval mode takes away, the parts' gradient is the sum."""

    told: list[float] = []

    def gradients(micro: int) -> list[Tensor]:
        objective = Classify(net(2, 1), "flow")
        stepper = Stepper(config(lr=1e-9, micro_batch=micro, clip_norm=0), here, objective, 1)
        objective.trained.train = lambda mode=True: objective.trained  # type: ignore[method-assign]
        objective.trained.eval()
        for module in objective.trained.modules():
            module.training = False
        told.append(stepper.take(batch)["loss"].item())
        return [p.grad for p in stepper.backbone.parameters() if p.grad is not None]

    for whole, parts in zip(gradients(0), gradients(3), strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-7)
    assert told[0] == pytest.approx(told[1], rel=1e-5)


def test_a_step_trains_whatever_validation_left_behind(batch: Batch, here: Place) -> None:
    stepper = Stepper(config(), here, Classify(net(2, 1), "flow"), 1)
    stepper.backbone.eval()
    before = {name: value.clone() for name, value in stepper.backbone.named_buffers()}
    stepper.take(batch)
    assert all(not torch.equal(value, before[n]) for n, value in stepper.backbone.named_buffers())


def test_long_gradients_are_cut(batch: Batch, here: Place) -> None:
    stepper = Stepper(config(lr=0.1, clip_norm=0.01), here, Classify(net(2, 1), "flow"), 1)
    told = stepper.take(batch)["gradient_norm"]
    length = torch.cat(
        [p.grad.flatten() for p in stepper.backbone.parameters() if p.grad is not None]
    )
    assert told > 0.01
    assert length.norm().item() == pytest.approx(0.01, rel=1e-3)


def test_the_average_is_that_of_the_weights_after_each_step(batch: Batch, here: Place) -> None:
    stepper = Stepper(config(lr=0.01, ema=0.5), here, Classify(net(2, 1), "flow"), 5)
    expected: dict[str, Tensor] = {}
    for _ in range(5):
        stepper.take(batch)
        for name, value in stepper.backbone.state_dict().items():
            now = value.double()
            expected[name] = 0.5 * (expected.get(name, now) + now)
    for name, value in stepper.kept.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-7)
    assert stepper.kept is not stepper.backbone


def test_batch_norm_is_measured_over_all_inputs(here: Place) -> None:
    made = nn.Sequential(nn.BatchNorm3d(2), nn.Identity())
    rng = np.random.default_rng(0)
    inputs = [rng.normal(3, 2, (2, 2, 3, 4, 4)).astype(np.float32) for _ in range(5)]
    measure_statistics(made, [torch.tensor(x) for x in inputs], here)
    means = np.mean([x.mean((0, 2, 3, 4)) for x in inputs], 0)
    variances = np.mean([x.var((0, 2, 3, 4), ddof=1) for x in inputs], 0)
    np.testing.assert_allclose(made[0].running_mean, means, rtol=1e-5)
    np.testing.assert_allclose(made[0].running_var, variances, rtol=1e-5)
    assert made[0].momentum == 0.1
    measure_statistics(made, [], here)
    np.testing.assert_allclose(made[0].running_mean, means, rtol=1e-5)


def test_every_process_gives_its_statistics_in_one_order(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Network and average have the same shapes: another order would mix them without a word."""
    met: list[Tensor] = []
    monkeypatch.setattr(dist, "all_reduce", met.append)
    steppers = [Stepper(config(ema=0.5), here, Classify(net(2, 1), "flow"), 1) for _ in range(12)]
    for stepper in steppers:
        met.clear()
        monkeypatch.setattr(stepper, "_here", replace(here, world=2))
        stepper.settle()
        both = [*stepper.backbone.buffers(), *stepper.kept.buffers()]
        expected = [buffer for buffer in both if buffer.is_floating_point()]
        assert [id(buffer) for buffer in met] == [id(buffer) for buffer in expected]


@pytest.mark.parametrize(("clips", "micro"), [(1, 0), (4, 3)])
def test_a_clip_that_batch_norm_meets_alone_is_told(
    clips: int, micro: int, batch: Batch, here: Place
) -> None:
    one = Batch(*(part[:clips] for part in batch))
    stepper = Stepper(config(micro_batch=micro), here, Classify(net(2, 1), "flow"), 1)
    with pytest.raises(FlowprepError, match="one clip at a time"):
        stepper.take(one)
