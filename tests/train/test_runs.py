"""Whole runs: stopped and gone on with, in several processes, refused, and cut short."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from flowprep.errors import FlowprepError
from train.checkpoint import load_meta, load_net, load_state
from train.common import Place
from train.config import Data, DistillConfig, Net, Optim, TeacherConfig
from train.distill import distill
from train.loop import Trainer
from train.step import Stepper
from train.teacher import train_teacher

STEPS = 6  # 8 training videos, batches of 4, 3 epochs
NET = Net(width=0.1, dropout=0.5)
OPTIM = Optim(epochs=3, batch=4, lr=0.01, ema=0.5, precise_bn=2)


def data(shards: Path, **options) -> Data:
    return Data(shards=str(shards), frames=8, crop=32, workers=0, **options)


def teacher_config(shards: Path, run: Path, **optim) -> TeacherConfig:
    return TeacherConfig(run=str(run), data=data(shards), net=NET, optim=replace(OPTIM, **optim))


def weights(run: Path, name: str = "last.safetensors") -> dict[str, torch.Tensor]:
    return load_file(run / name)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.fixture(scope="module", autouse=True)
def _every_epoch() -> Iterator[None]:
    """Validate after each epoch of two steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.loop.VALIDATE_STEPS", 1)
        yield


@pytest.fixture(scope="module")
def finished(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher trained without a stop."""
    run = tmp_path_factory.mktemp("finished") / "teacher"
    one = Place(0, 1, torch.device("cpu"), False)
    assert train_teacher(teacher_config(labelled, run), one) == "done"
    return run


def test_a_finished_run_holds_what_it_was(finished: Path, labelled: Path) -> None:
    net, meta = load_net(str(finished))
    assert meta.classes == ["down", "left", "right"]
    assert (meta.modality, meta.model.in_channels, meta.flow_clip_px) == ("flow", 2, 20.0)
    assert (meta.window.frames, meta.window.crop, meta.window.scale_flow) == (8, 32, False)
    assert meta.config["data"]["shards"] == str(labelled)
    assert meta.extraction["short_side"] == 0
    assert len(meta.fingerprint) == 16
    assert not net.training
    last = load_meta(finished / "last.safetensors")
    assert (last.step, last.epoch) == (STEPS, 3.0)
    assert meta.val_top1 >= last.val_top1
    assert {p.name for p in finished.iterdir()} == {
        "best.safetensors",
        "last.safetensors",
        "state.pt",
        "config.toml",
        "log.jsonl",
        "tensorboard",
    }
    log = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log if row["kind"] == "val"] == [2, 4, 6]
    assert all(row["loss"] > 0 for row in log)


@pytest.mark.parametrize("stop", range(1, STEPS))
def test_stopping_after_any_step_and_going_on_changes_no_bit(
    stop: int,
    finished: Path,
    labelled: Path,
    tmp_path: Path,
    here: Place,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = teacher_config(labelled, tmp_path / "run")
    take = Stepper.take

    def interrupted(stepper: Stepper, batch):
        terms = take(stepper, batch)
        if stepper.step == stop:
            signal.raise_signal(signal.SIGTERM)
        return terms

    with monkeypatch.context() as patched:
        patched.setattr(Stepper, "take", interrupted)
        assert train_teacher(config, here) == "interrupted"
    assert load_state(tmp_path / "run" / "state.pt")["step"] == stop
    torch.manual_seed(999)  # nothing may hang on what a fresh process happens to have
    torch.rand(stop)
    assert train_teacher(config, here) == "done"
    assert same(weights(tmp_path / "run"), weights(finished))
    assert same(
        weights(tmp_path / "run", "best.safetensors"), weights(finished, "best.safetensors")
    )


def test_a_finished_run_is_left_alone(finished: Path, labelled: Path, here: Place) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.glob("*.safetensors")}
    assert train_teacher(teacher_config(labelled, finished), here) == "done"
    assert {p: p.stat().st_mtime_ns for p in finished.glob("*.safetensors")} == before


def test_other_settings_or_videos_are_refused_by_name(
    finished: Path, labelled: Path, here: Place
) -> None:
    config = teacher_config(labelled, finished, lr=0.5)
    with pytest.raises(FlowprepError, match=r"other settings: lr: 0\.01 -> 0\.5"):
        train_teacher(config, here)
    fewer = replace(config, optim=OPTIM, data=data(labelled, val_share=0.4))
    with pytest.raises(FlowprepError, match="val_share"):
        train_teacher(fewer, here)


def test_a_student_goes_on_bit_for_bit_too(
    finished: Path, labelled: Path, tmp_path: Path, here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def config(run: str) -> DistillConfig:
        optim = replace(OPTIM, ema=0.0, epochs=1.5)
        place = str(tmp_path / run)
        return DistillConfig(
            run=place, teacher=str(finished), data=data(labelled), net=NET, optim=optim
        )

    assert distill(config("whole"), here) == "done"
    monkeypatch.setattr(Trainer, "_agreed", lambda self, flag: self._stepper.step == 1)
    assert distill(config("parts"), here) == "interrupted"
    monkeypatch.undo()
    assert distill(config("parts"), here) == "done"
    assert same(weights(tmp_path / "parts"), weights(tmp_path / "whole"))


def run_module(module: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """`python -m train.<module>` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", f"train.{module}", *(str(a) for a in arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def options(shards: Path, run: Path) -> list[object]:
    place = ["--shards", shards, "--run", run, "--frames", 8, "--crop", 32, "--workers", 0]
    return [*place, "--width", 0.1, "--batch", 4, "--lr", 0.01, "--clip-norm", 0]


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=240)
    return process.returncode, output


def test_two_processes_train_as_one_does(labelled: Path, tmp_path: Path) -> None:
    """Each batch is split in two either way, so that batch norm sees the same clips."""
    common = ["--epochs", 1, "--dropout", 0, "--precise-bn", 0, "--val-share", 0.3]
    alone = options(labelled, tmp_path / "one")
    code, told = ended(run_module("teacher", *alone, *common, "--micro-batch", 2))
    assert code == 0, told
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    both = [
        run_module(
            "teacher", *options(labelled, tmp_path / "two"), *common, RANK=str(rank), **address
        )
        for rank in range(2)
    ]
    for process in both:
        code, told = ended(process)
        assert code == 0, told
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, value in one.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5, msg=name)
    videos = [videos_seen(tmp_path / run) for run in ("one", "two")]
    assert videos[0] == videos[1] == [3]


def videos_seen(run: Path) -> list[int]:
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [row["videos"] for row in log if row["kind"] == "val"]


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_its_processes_saves(
    number: signal.Signals, labelled: Path, tmp_path: Path
) -> None:
    """As a terminal sends Ctrl-C and a scheduler SIGTERM: to the workers as well."""
    run = tmp_path / "run"
    arguments = [*options(labelled, run), "--epochs", 500, "--workers", 1]
    process = run_module("teacher", *arguments)
    wait_for(lambda: (run / "state.pt").exists(), process)
    os.killpg(process.pid, number)
    code, told = ended(process)
    assert code == 130, told
    assert "it goes on" in told
    assert load_state(run / "state.pt")["step"] > 0


def wait_for(there: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not there():
        assert process.poll() is None, ended(process)
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_loss_that_is_no_number_stops_the_run(
    labelled: Path, tmp_path: Path, here: Place
) -> None:
    config = teacher_config(labelled, tmp_path / "run", lr=1000.0, clip_norm=0.0, epochs=40)
    with pytest.raises(FlowprepError, match=r"(loss|gradient_norm) is (nan|inf) at step") as caught:
        train_teacher(config, here)
    assert "lower --lr" in caught.value.hint


def test_a_full_disk_leaves_the_last_good_files(
    labelled: Path, tmp_path: Path, here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = teacher_config(labelled, tmp_path / "run")
    fsync = os.fsync
    files: list[int] = []

    def full(handle: int) -> None:
        files.append(handle)
        if len(files) > 5:  # config, then three files at the first validation, one at the next
            raise OSError(28, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        train_teacher(config, here)
    monkeypatch.undo()
    assert not list((tmp_path / "run").glob("*.tmp"))
    assert load_state(tmp_path / "run" / "state.pt")["step"] == 2
    assert load_meta(tmp_path / "run" / "best.safetensors").step == 2
    assert train_teacher(config, here) == "done"
