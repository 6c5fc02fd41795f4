"""Train a network on RGB alone that learns motion from a teacher of flow (D3D).

python -m train.distill --shards shards/                             # teacher, then student
python -m train.distill --shards shards/ --teacher runs/teacher --lambda 10
python -m train.distill --shards shards/ --loss none --run runs/rgb  # no teacher: plain RGB
python -m train.distill --shards new/ --teacher runs/t --init runs/d3d --reset-head
torchrun --nproc-per-node 8 -m train.distill -- --shards shards/
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

from flowprep.errors import FlowprepError
from train.checkpoint import Meta, Modality, digest, load_net, weights_of
from train.common import Place, Stop, place, run_main, seed_all, tell
from train.config import DistillConfig, Loss, TeacherConfig, parse
from train.loop import Trainer
from train.metrics import Scores, score
from train.models.base import ModelConfig, VideoModel
from train.objective import Classify, Distill, DistillShuffled, Objective, PredictFlow
from train.setup import Setup, make_table, prepare, views
from train.start import known_classes
from train.teacher import train_teacher

TAUGHT: frozenset[Loss] = frozenset({"mse-logits", "kl", "mse-features"})
"""Losses that need a teacher."""


def distill(config: DistillConfig, here: Place) -> Stop:
    """Train, or go on training, the student of `config`; its teacher first where it has none."""
    check_controls(config)
    if config.loss in TAUGHT and not config.teacher:
        config = replace(config, teacher=str(Path(config.run) / "teacher"))
        if _teach(config, here) == "interrupted":
            return "interrupted"
    elif config.teacher and config.loss not in TAUGHT and here.first:
        tell(f"--loss {config.loss} learns from no teacher: {config.teacher} is not used")
    seed_all(config.seed)
    setup = prepare(config, "rgb", here, also=("flow",) if _sees_flow(config) else ())
    objective, meta = make_objective(config, setup, here), setup.meta
    if config.loss in TAUGHT:
        meta = replace(meta, teacher=digest(weights_of(config.teacher)))
    stop = Trainer(config, here, objective, meta, setup.feed).run()
    if here.first and stop == "done":
        tell(f"student: {config.run}/best.safetensors")
    return stop


def check_controls(config: DistillConfig) -> None:
    """Raise FlowprepError for a control that this loss or teacher does not make."""
    if config.loss in TAUGHT and config.teacher_sees == "rgb" and not config.teacher:
        raise FlowprepError("--teacher-sees rgb needs --teacher", "give a run of RGB")
    if config.teacher_logits == "shuffled" and config.loss not in TAUGHT - {"mse-features"}:
        raise FlowprepError(
            f"--teacher-logits shuffled does nothing with --loss {config.loss}",
            "give --loss mse-logits or kl",
        )


def _sees_flow(config: DistillConfig) -> bool:
    """Whether a step needs the flow of its windows."""
    if config.loss in TAUGHT:
        return config.teacher_sees == "flow" and config.teacher_logits == "own"
    return config.loss == "flow"


def _teach(config: DistillConfig, here: Place) -> Stop:
    """Train a teacher with the student's settings."""
    teacher = TeacherConfig(
        run=config.teacher,
        seed=config.seed,
        data=config.data,
        net=replace(config.net, init="", reset_head=False, lr_backbone=1.0),
        optim=config.optim,
        machine=config.machine,
    )
    return train_teacher(teacher, here, known_classes(config.net))


def make_objective(config: DistillConfig, setup: Setup, here: Place) -> Objective:
    """What the student minimises. Raises FlowprepError where the teacher does not fit."""
    if config.loss == "none":
        return Classify(setup.net, "rgb")
    if config.loss == "flow":
        return PredictFlow(setup.net, config)
    teacher, meta = load_net(config.teacher)
    check_teacher(config.teacher, meta, setup.meta, config.teacher_sees)
    if here.first and (odd := other_flow(meta, setup.meta)):
        tell(f"note: the teacher learned on clips extracted otherwise: {', '.join(odd)}")
    if config.loss == "mse-features":
        check_features(meta.model, setup.meta.model)
    teacher = teacher.to(here.device)
    if config.teacher_logits == "shuffled":
        said = _said(config, teacher, setup.meta, here)
        return DistillShuffled(setup.net, teacher, config, said)
    return Distill(setup.net, teacher, config)


def _said(config: DistillConfig, teacher: VideoModel, meta: Meta, here: Place) -> Scores:
    """The teacher's logits of every training video: of a window from the middle of each clip."""
    train, sees = make_table(config.data, meta.classes).only("train"), config.teacher_sees
    windows = views(train, meta.window, config.data, here, (sees,), batch=config.optim.batch)
    with closing(windows):
        return score(teacher, sees, windows, here)


def check_teacher(name: str, teacher: Meta, student: Meta, sees: Modality = "flow") -> None:
    """Raise FlowprepError unless the teacher saw `sees`, as the student's windows are, and names
    the same classes."""
    if teacher.modality != sees:
        raise FlowprepError(
            f"--teacher {name} sees {teacher.modality}, --teacher-sees is {sees}",
            "give a run of train.teacher, or for the control of soft labels --teacher-sees rgb",
        )
    if teacher.classes != student.classes:
        raise FlowprepError(
            f"--teacher {name} knows {len(teacher.classes)} classes "
            f"({', '.join(teacher.classes[:3])}, ...), the dataset has {len(student.classes)} "
            f"({', '.join(student.classes[:3])}, ...)",
            "train a teacher on this dataset, or give --labels with the teacher's classes",
        )
    for field in ("stride", "resize", "scale_flow"):
        theirs, ours = getattr(teacher.window, field), getattr(student.window, field)
        if theirs != ours:
            flag = field.replace("_", "-")
            raise FlowprepError(
                f"--teacher {name} was trained with --{flag} {theirs}, this run has {ours}",
                "its flow must look the same: give the same setting",
            )


FLOW_SETTINGS = ("fps", "stride", "short_side", "apply_sar", "engine", "engine_params")
"""Settings of flowprep extract that make flow longer, shorter or other."""


def other_flow(teacher: Meta, student: Meta) -> list[str]:
    """The extraction settings in which their flow differs, as "name: teacher's -> student's"."""
    pairs = {n: (teacher.extraction.get(n), student.extraction.get(n)) for n in FLOW_SETTINGS}
    return [f"{n}: {theirs} -> {ours}" for n, (theirs, ours) in pairs.items() if theirs != ours]


def check_features(teacher: ModelConfig, student: ModelConfig) -> None:
    """Raise FlowprepError unless both networks' pooled features are of one kind."""
    theirs, ours = ((m.arch, m.width) for m in (teacher, student))
    if theirs != ours:
        raise FlowprepError(
            f"the teacher is {theirs[0]} of width {theirs[1]:g}, the student {ours[0]} of "
            f"{ours[1]:g}: their features do not compare",
            "give both the same --arch and --width, or another --loss",
        )


def main() -> Stop:
    config = parse(DistillConfig, "python -m train.distill")
    with place(config.machine.device, config.machine.precision) as here:
        return distill(config, here)


if __name__ == "__main__":
    run_main(main)
