"""What a user sees of a run: a progress bar or lines, TensorBoard, and log.jsonl."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from flowprep.errors import FlowprepError
from train.common import Place
from train.metrics import Scores
from train.objective import Terms
from train.step import Stepper

LOG_STEPS = 10
"""Terms are read, checked and written at every so many steps: reading them waits for the GPU."""


class Report:
    """Follows a stepper. Only the first process writes; all of them check the loss."""

    def __init__(self, folder: Path, stepper: Stepper, batch: int, here: Place) -> None:
        self._folder, self._stepper, self._batch, self._here = folder, stepper, batch, here
        self._epoch_text = ""
        self._since, self._since_step = time.monotonic(), stepper.step

    def __enter__(self) -> Report:
        if self._here.first:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._log = (self._folder / "log.jsonl").open("a", encoding="utf-8")
            self._board = SummaryWriter(str(self._folder / "tensorboard"))
            self._bar = _bar()
            self._task = self._bar.add_task(
                "", total=self._stepper.total_steps, completed=self._stepper.step, text=""
            )
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._here.first:
            self._bar.stop()
            self._board.close()
            self._log.close()

    def step(self, terms: Terms, now: bool) -> None:
        """Note a step, at every LOG_STEPS or `now`.

        Raises FlowprepError when the loss or the gradient is no number.
        """
        step = self._stepper.step
        if step % LOG_STEPS and not now:
            return
        values = {name: value.item() for name, value in terms.items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise FlowprepError(
                    f"{name} is {value} at step {step}",
                    f"give another --run and lower --lr ({self._stepper.rate:g} now); "
                    f"--init {self._folder} starts it from the best weights so far",
                )
        if self._here.first:
            self._tell_step(values)

    def _tell_step(self, values: dict[str, float]) -> None:
        now, step = time.monotonic(), self._stepper.step
        clips_s = (step - self._since_step) * self._batch / max(now - self._since, 1e-9)
        self._since, self._since_step = now, step
        self._write("train", values | {"lr": self._stepper.rate, "clips_s": clips_s})
        text = f"loss {values['loss']:.3f}  {clips_s:.1f} clips/s{self._epoch_text}"
        self._bar.update(self._task, completed=step, text=text)

    def epoch(self, epoch: float, scores: Scores) -> None:
        """Note a validation."""
        if not self._here.first:
            return
        values = {"top1": scores.top(1), "top5": scores.top(5), "loss": scores.loss()}
        self._write("val", values | {"epoch": epoch, "videos": len(scores)})
        self._epoch_text = f"  val top-1 {values['top1']:.1%}"
        self._since = time.monotonic()  # not a second of this was training
        self._bar.console.print(
            f"epoch {epoch:.1f}  step {self._stepper.step:,}/{self._stepper.total_steps:,}"
            f"  val top-1 {values['top1']:.1%}  top-5 {values['top5']:.1%}"
            f"  loss {values['loss']:.3f}  ({len(scores):,} videos)",
            soft_wrap=True,
        )

    def _write(self, kind: str, values: dict[str, Any]) -> None:
        step = self._stepper.step
        self._log.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self._log.flush()
        for name, value in values.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)


def _bar() -> Progress:
    """A bar on a terminal; elsewhere only the lines printed above it."""
    console = Console(highlight=False)
    columns = (TextColumn("{task.completed}/{task.total}"), BarColumn(), TimeRemainingColumn())
    return Progress(
        *columns,
        TextColumn("{task.fields[text]}"),
        console=console,
        disable=not console.is_terminal,
    )
