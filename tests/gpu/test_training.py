"""Training on a CUDA device: bf16 against float32, compiled or not, and going on after a stop."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch; CUDA builds bring it")

from train.common import Place  # noqa: E402
from train.config import Data, Machine, Net, Optim, TeacherConfig  # noqa: E402
from train.data.synthetic import synthetic_table  # noqa: E402
from train.models.base import ModelConfig, build  # noqa: E402
from train.teacher import train_teacher  # noqa: E402

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", autouse=True)
def _cuda() -> None:
    if torch.cuda.is_available():
        return
    if os.environ.get("FLOWPREP_FAIL_WITHOUT_CUDA") == "1":
        pytest.fail("no CUDA device, and FLOWPREP_FAIL_WITHOUT_CUDA=1")
    pytest.skip("no CUDA device")


def place(bf16: bool) -> Place:
    return Place(0, 1, torch.device("cuda", 0), bf16)


@pytest.mark.parametrize("shape", [(2, 3, 16, 112, 112), (1, 3, 64, 224, 224)])
def test_bf16_gives_the_logits_of_float32(shape: tuple[int, ...]) -> None:
    """PyTorch 2.9 had Conv3d in bfloat16 wrong at large shapes (pytorch issues 163539, 166643)."""
    torch.manual_seed(0)
    net = build(ModelConfig(n_classes=50, bn_momentum=1.0)).cuda()
    clip = torch.rand(*shape, device="cuda") * 2 - 1
    with torch.no_grad():
        net.train()(clip)  # else batch norm is neutral and the logits are nearly zero
        net.eval()
        plain = net(clip)
        net.to(memory_format=torch.channels_last_3d)
        with place(True).autocast():
            short = net(clip).float()
    assert plain.std() > 1e-3
    assert ((short - plain).norm() / plain.norm()).item() < 0.05


def config(run: Path, **machine) -> TeacherConfig:
    return TeacherConfig(
        run=str(run),
        data=Data(data="synthetic", frames=8, crop=64, workers=2),
        net=Net(width=0.25),
        optim=Optim(epochs=2, batch=16),
        machine=Machine(**machine),
    )


@pytest.mark.parametrize("options", [{}, {"compile": True}, {"precision": "fp32"}])
def test_a_teacher_trains(options: dict, tmp_path: Path) -> None:
    made = config(tmp_path / "run", **options)
    assert train_teacher(made, place(made.machine.precision != "fp32")) == "done"
    assert (tmp_path / "run" / "best.safetensors").exists()


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = config(tmp_path / "whole")
    assert train_teacher(whole, place(True)) == "done"
    parts = replace(whole, run=str(tmp_path / "parts"))
    n_steps = len(synthetic_table().only("train")) * 2 // 16
    stop_at(parts, n_steps // 2)
    assert train_teacher(parts, place(True)) == "done"
    from safetensors.torch import load_file

    one, other = (load_file(tmp_path / run / "last.safetensors") for run in ("whole", "parts"))
    for name, value in one.items():
        torch.testing.assert_close(other[name].float(), value.float(), rtol=0.1, atol=0.02)


def stop_at(made: TeacherConfig, step: int) -> None:
    """Train until `step`, as if interrupted there."""
    from train.loop import Trainer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_agreed", lambda self, flag: self._stepper.step == step)
        assert train_teacher(made, place(True)) == "interrupted"
