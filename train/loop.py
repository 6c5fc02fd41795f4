"""A run: steps, validation, what is kept, and going on where it stopped."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from flowprep.errors import FlowprepError
from train.checkpoint import (
    BEST,
    CONFIG,
    LAST,
    STATE,
    Meta,
    load_state,
    save_state,
    save_weights,
    write_whole,
)
from train.common import Interrupt, Place, Stop, any_process, gather, tell
from train.config import TrainConfig, differences, dump_toml, load_config
from train.data.batch import network_input
from train.data.loader import Batches
from train.metrics import score, to_device
from train.objective import Objective
from train.report import Report
from train.step import Stepper, measure_statistics

ASK_STEPS = 10
"""Processes agree at every so many steps on whether to save or stop: asking waits for the GPU."""

VALIDATE_STEPS = 20
"""Epochs shorter than this go by together between two validations."""


@dataclass(frozen=True)
class Feed:
    """The batches of one process."""

    train: Callable[[int], Batches]  # from a step on, without end
    validation: Callable[[], Batches]  # each validation clip once
    epoch_steps: Fraction  # steps in one pass over the training videos
    order: str  # hash of the training videos, in the order in which they are numbered, and labels


class Trainer:
    """One run in one process, from its state on disk, if there is one, to the end."""

    def __init__(
        self, config: TrainConfig, here: Place, objective: Objective, meta: Meta, feed: Feed
    ) -> None:
        self._config, self._here, self._meta, self._feed = config, here, meta, feed
        self._folder = Path(config.run)
        total = math.ceil(Fraction(str(config.optim.epochs)) * feed.epoch_steps)
        self._stepper = Stepper(config, here, objective, total)
        self._best = [-1.0, 0.0]  # top-1, then minus the loss
        self._saved_s = time.monotonic()
        self._skipped = set[str]()

    def run(self) -> Stop:
        """Train to the end, or until interrupted.

        Raises FlowprepError when the loss is no number or the folder holds another run, OSError
        when nothing can be written: the last good files stay.
        """
        self._resume()
        stepper, asked = self._stepper, False
        report = Report(self._folder, stepper, self._config.optim.batch, self._here)
        with Interrupt() as interrupt, report, self._opened(self._feed.train(stepper.step)) as feed:
            while stepper.step < stepper.total_steps and not asked:
                terms = stepper.take(next(feed))
                ends, asked = self._epoch_ends(), self._agreed(interrupt.asked)
                saves = asked or self._agreed(self._is_save_due())
                report.step(terms, now=ends or saves)
                if ends:
                    self._validate(report)
                elif saves:
                    self._save_state()
        self._tell_skipped()
        return "interrupted" if asked or any_process(interrupt.asked, self._here) else "done"

    def _agreed(self, flag: bool) -> bool:
        """Whether a process has the flag up; several ask one another only now and then."""
        if self._here.world > 1 and self._stepper.step % ASK_STEPS:
            return False
        return any_process(flag, self._here)

    @contextmanager
    def _opened(self, batches: Batches) -> Iterator[Batches]:
        """`batches`, whose workers are ended and whose damaged samples are noted."""
        with closing(batches):
            yield batches
        self._skipped.update(batches.skipped)

    def _tell_skipped(self) -> None:
        keys = sorted(set().union(*gather(self._skipped, self._here)))
        if keys and self._here.first:
            tell(f"{len(keys)} damaged samples were left out: {', '.join(keys[:5])}")

    def _epoch_ends(self) -> bool:
        """Whether the step just taken completed some passes over the videos, or the run."""
        epochs = math.ceil(VALIDATE_STEPS / self._feed.epoch_steps)
        step, length = self._stepper.step, epochs * self._feed.epoch_steps
        return step // length > (step - 1) // length or step == self._stepper.total_steps

    def _is_save_due(self) -> bool:
        return time.monotonic() - self._saved_s > 60 * self._config.machine.save_minutes

    def _validate(self, report: Report) -> None:
        """Score the validation videos; keep these weights and, where they are better, as best."""
        net = self._stepper.kept
        measure_statistics(net, self._training_inputs(), self._here)
        self._stepper.settle()
        with self._opened(self._feed.validation()) as batches:
            scores = score(net, self._meta.modality, batches, self._here)
        epoch = float(self._stepper.step / self._feed.epoch_steps)
        report.epoch(epoch, scores)
        judged = [scores.top(1), -scores.loss()]
        if better := judged > self._best:
            self._best = judged
        if self._here.first:
            meta = replace(self._meta, step=self._stepper.step, epoch=epoch, val_top1=scores.top(1))
            save_weights(self._folder / LAST, net, meta)
            if better:
                save_weights(self._folder / BEST, net, meta)
        self._save_state()

    def _training_inputs(self) -> Iterator[torch.Tensor]:
        """What batch norm is measured on: the next training batches."""
        n = min(self._config.optim.precise_bn, math.ceil(self._feed.epoch_steps))
        with self._opened(self._feed.train(self._stepper.step)) as batches:
            for batch in islice(batches, n):
                yield network_input(to_device(batch, self._here), self._meta.modality)

    def _save_state(self) -> None:
        self._stepper.settle()
        if self._here.first:
            state = self._stepper.state() | self._same() | {"best": self._best}
            save_state(self._folder / STATE, state)
        self._saved_s = time.monotonic()

    def _resume(self) -> None:
        """Go on from the state in the folder, or start there."""
        if not (self._folder / STATE).exists():
            if self._here.first:
                write_whole(self._folder / CONFIG, dump_toml(self._config).encode())
            return
        state = load_state(self._folder / STATE)
        odd = [what for what, value in self._same().items() if state.get(what) != value]
        if "modality" in odd:
            raise FlowprepError(
                f"{self._folder} is a run of {state.get('modality')}, not of {self._meta.modality}",
                "give another --run",
            )
        check_same(self._folder, self._config)
        if odd:
            raise FlowprepError(
                f"the {' and the '.join(odd)} are no longer what {self._folder} began with",
                "give another --run, with --init to start from these weights",
            )
        self._stepper.restore(state)
        self._best = state["best"]

    def _same(self) -> dict[str, Any]:
        """What must be the same when the run goes on, and is no setting."""
        return {
            "modality": self._meta.modality,
            "training videos or their classes": self._feed.order,
            "weights of the teacher": self._meta.teacher,
        }


def check_same(folder: Path, config: TrainConfig) -> None:
    """Raise FlowprepError naming the settings in which `config` is not that of the run."""
    then = load_config(type(config), folder / CONFIG)
    if found := differences(then, config):
        raise FlowprepError(
            f"{folder} is a run with other settings: {', '.join(found)}",
            "give the same settings to go on, or another --run",
        )
