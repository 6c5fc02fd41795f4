"""Jobs that train a network and judge it."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipelines.motionbench.arms import ARM, Arm
from pipelines.motionbench.bench import Bench
from pipelines.motionbench.dataset import Task
from pipelines.motionbench.judge import confusion, judge
from train.checkpoint import load_net
from train.common import Place
from train.config import Data, DistillConfig, Net, Optim, TeacherConfig
from train.distill import distill
from train.metrics import Scores, score
from train.setup import make_table, views
from train.teacher import train_teacher

SEARCH_SEED = 0
SEARCH_SHARE = 1 / 2
"""Of the steps of a run that counts."""


class Interrupted(Exception):
    """A run was stopped, and saved."""


@dataclass(frozen=True)
class TrainJob:
    """One network; `tried` is the value that is tried for it where its settings are searched."""

    task: Task
    arm_name: str
    seed: int
    tried: float | None = None

    @property
    def arm(self) -> Arm:
        return ARM[self.arm_name]

    @property
    def name(self) -> str:
        if self.tried is None:
            return f"{self.task}/{self.arm_name}-s{self.seed}"
        return f"search/{self.task}/{self.arm_name}-{self.tried:g}"

    @property
    def own(self) -> Arm:
        """Whose settings it has."""
        return ARM[self.arm.settings_of or self.arm_name]

    def needs(self, bench: Bench) -> list[str]:
        """Results without which it cannot begin: tries, its teacher, where it starts from."""
        teacher = ARM[self.arm.teacher] if self.arm.teacher else None
        arms = [self.own] if self.tried is None else []
        arms += [ARM["rgb"]] if self.own.weights else []
        if self.tried is not None and teacher:
            arms.append(teacher)
        found = [job.name for arm in arms for job in tries(bench, self.task, arm)]
        if self.tried is None and teacher:
            found.append(TrainJob(self.task, teacher.name, self.seed).name)
        return found + ([self._start()] if self.arm.starts_from else [])

    def do(self, bench: Bench) -> dict[str, Any]:
        """Train, or go on training, and judge. Raises Interrupted."""
        began_s = time.monotonic()
        rate, weight = self._settings(bench)
        with bench.place() as here:
            config = self._config(bench, rate, weight)
            if isinstance(config, TeacherConfig):
                stop = train_teacher(config, here)
            else:
                stop = distill(config, here)
            if stop == "interrupted":
                raise Interrupted
            found = self._judged(bench, config.data, here)
        return {
            "space": self.task.space,
            "n_train": self.task.n_train,
            "bias": self.task.bias,
            "arm": self.arm_name,
            "seed": self.seed,
            "learning_rate": rate,
            "weight": weight,
            "epochs": config.optim.epochs,
            "seconds": round(time.monotonic() - began_s, 1),
            **found,
        }

    def _settings(self, bench: Bench) -> tuple[float, float | None]:
        """Learning rate, and weight of the second loss."""
        value = best_try(bench, self.task, self.own) if self.tried is None else self.tried
        if not self.own.weights:
            return value, None
        weight = value if self.arm.weight is None else self.arm.weight
        return best_try(bench, self.task, ARM["rgb"]), weight

    def _config(
        self, bench: Bench, rate: float, weight: float | None
    ) -> TeacherConfig | DistillConfig:
        scale, arm = bench.scale, self.arm
        common: dict[str, Any] = {
            "run": str(bench.run(self.name)),
            "seed": self.seed + arm.seed_plus,
            "data": bench.data(self.task, 1 if arm.one_frame else None, arm.shuffled_frames),
            "net": self._net(bench),
            "optim": replace(scale.optim, lr=rate, epochs=self._epochs(bench)),
        }
        if arm.modality == "flow":
            return TeacherConfig(**common)
        if weight is not None:
            common["lambda_"] = weight
            common["center_logits"] = arm.center_logits
        if arm.teacher:
            common["teacher"] = str(bench.run(self._teacher(bench)))
            common["teacher_sees"] = ARM[arm.teacher].modality
            common["teacher_logits"] = "shuffled" if arm.shuffled_logits else "own"
        return DistillConfig(loss=arm.loss, **common)

    def _net(self, bench: Bench) -> Net:
        if not self.arm.starts_from:
            return bench.scale.net
        is_other = self.arm.starts_from[0] != self.task.space
        return replace(bench.scale.net, init=str(bench.run(self._start())), reset_head=is_other)

    def _start(self) -> str:
        """The job whose weights it starts with."""
        assert self.arm.starts_from
        space, arm_name = self.arm.starts_from
        return TrainJob(Task(space, self.task.n_train), arm_name, self.seed).name

    def _teacher(self, bench: Bench) -> str:
        """The job whose network teaches: in a search the best that was found."""
        teacher = ARM[self.arm.teacher]
        if self.tried is None:
            return TrainJob(self.task, teacher.name, self.seed).name
        value = best_try(bench, self.task, teacher)
        return TrainJob(search_task(bench, self.task), teacher.name, SEARCH_SEED, value).name

    def _epochs(self, bench: Bench) -> float:
        """As many as make the same number of steps, whatever the size of the training set."""
        optim: Optim = bench.scale.optim
        share = SEARCH_SHARE if self.tried is not None else self.arm.longer
        return round(share * bench.scale.steps * optim.batch / self.task.n_train, 3)

    def _judged(self, bench: Bench, data: Data, here: Place) -> dict[str, Any]:
        run = str(bench.run(self.name))
        meta = load_net(run)[1]
        val = _scores(run, data, "val", here)
        found: dict[str, Any] = {
            "steps": meta.step,
            "val": {"top1": val.top(1), "loss": val.loss()},
        }
        if self.tried is not None:
            return found
        test = _scores(run, data, "test", here)
        _keep(bench, self.name, test, meta.classes)
        values = test.logits_VK.numpy(), test.label_V.numpy(), meta.classes
        found |= {"test": judge(*values), "confusion": confusion(*values)}
        if self.arm.modality == "rgb" and not self.arm.one_frame:
            order = _scores(run, data, "test", here, shuffled=True)
            values = order.logits_VK.numpy(), order.label_V.numpy(), meta.classes
            found["test_shuffled"] = judge(*values)
        return found


def _scores(run: str, data: Data, split: str, here: Place, shuffled: bool = False) -> Scores:
    """Of one window from the middle of each clip."""
    net, meta = load_net(run)
    table = make_table(data, meta.classes).only(split)
    window = replace(meta.window, shuffle_frames=meta.window.shuffle_frames or shuffled)
    with closing(views(table, window, data, here, (meta.modality,), batch=32)) as batches:
        return score(net.to(here.device), meta.modality, batches, here)


def _keep(bench: Bench, name: str, scores: Scores, classes: list[str]) -> None:
    """Logits, for networks that answer together."""
    path = bench.run(name) / "test.npz"
    aside = path.with_suffix(".part.npz")
    np.savez(
        aside,
        video_V=scores.video_V.numpy(),
        label_V=scores.label_V.numpy(),
        logits_VK=scores.logits_VK.numpy(),
        classes=np.array(classes),
    )
    aside.replace(path)


def search_task(bench: Bench, task: Task) -> Task:
    """Where settings are searched: without bias, on the smallest training set."""
    return Task(task.space, bench.scale.n_train[0])


def tries(bench: Bench, task: Task, arm: Arm) -> list[TrainJob]:
    """What is tried for an arm, whose settings serve every training set of a label space."""
    where = search_task(bench, task)
    return [TrainJob(where, arm.name, SEARCH_SEED, value) for value in arm.tries]


def best_try(bench: Bench, task: Task, arm: Arm) -> float:
    """The value with the best validation: most right, then least loss."""

    def goodness(job: TrainJob) -> tuple[float, float]:
        val = bench.read(job.name)["val"]
        return val["top1"], -val["loss"]

    best = max(tries(bench, task, arm), key=goodness)
    assert best.tried is not None
    return best.tried
