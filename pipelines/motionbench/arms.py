"""The networks that are compared: what each sees and learns from, and what is tried for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.motionbench.scales import Space
from train.checkpoint import Modality
from train.config import Loss

RATES = (0.001, 0.003, 0.01)
WEIGHTS = (0.1, 1.0, 10.0)
FEATURE_WEIGHTS = (5.0, 50.0, 500.0)  # about the 50 of MARS
BOTH: tuple[Space, ...] = ("P", "C")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A network that is trained. Each has three tries: of the learning rate where it has no weight,
    of the weight of its second loss, at the learning rate of `rgb`, where it has one."""

    name: str
    spaces: tuple[Space, ...]
    loss: Loss = "none"
    modality: Modality = "rgb"
    weights: tuple[float, ...] = ()
    teacher: str = ""  # the arm whose run of the same seed teaches
    shuffled_logits: bool = False
    shuffled_frames: bool = False
    one_frame: bool = False
    settings_of: str = ""  # the arm whose settings it has, instead of tries of its own
    seed_plus: int = 0  # so that it is another network than that arm's
    weight: float | None = None  # of its second loss, instead of the one that was found best
    center_logits: bool = False  # each clip's mean over the classes is taken off
    longer: float = 1.0  # times the steps of the others
    starts_from: tuple[Space, str] | None = None  # the arm of its seed whose weights it starts with

    @property
    def tries(self) -> tuple[float, ...]:
        """Values to choose from."""
        return () if self.settings_of else self.weights or RATES


def way(name: str, **changed: Any) -> Arm:
    """D3D with the settings that were found for it, but for what is changed."""
    told = {"loss": "mse-logits", "teacher": "flow", "settings_of": "d3d"} | changed
    return Arm(name=name, spaces=("C",), **told)


def on_rgb(name: str, **changed: Any) -> Arm:
    """Labels alone, with the settings that were found for `rgb`, but for what is changed."""
    return Arm(name=name, spaces=("C",), settings_of="rgb", **changed)


ARMS = (
    Arm(name="flow", spaces=BOTH, modality="flow"),
    Arm(name="rgb", spaces=BOTH),
    Arm(name="d3d", spaces=BOTH, loss="mse-logits", teacher="flow", weights=WEIGHTS),
    Arm(name="multi-task", spaces=BOTH, loss="flow", weights=WEIGHTS),
    Arm(name="single-frame", spaces=("P",), one_frame=True),
    Arm(name="shuffled-frames", spaces=("P",), shuffled_frames=True),
    Arm(name="second-rgb", spaces=("C",), settings_of="rgb", seed_plus=1000),
    Arm(name="self-distilled", spaces=("C",), loss="mse-logits", teacher="rgb", weights=WEIGHTS),
    Arm(
        name="d3d-shuffled-logits",
        spaces=("C",),
        loss="mse-logits",
        teacher="flow",
        weights=WEIGHTS,
        shuffled_logits=True,
    ),
    Arm(name="mars", spaces=("C",), loss="mse-features", teacher="flow", weights=FEATURE_WEIGHTS),
    Arm(name="kl", spaces=("C",), loss="kl", teacher="flow", weights=WEIGHTS),
)

LONGER = 3.0
WAYS = (
    way("d3d-weight-1", weight=1.0),
    on_rgb("d3d-then-labels", starts_from=("C", "d3d-weight-1")),
    on_rgb("rgb-again", starts_from=("C", "rgb")),
    way("d3d-motion-first", starts_from=("P", "d3d")),
    on_rgb("rgb-motion-first", starts_from=("P", "rgb")),
    on_rgb("rgb-longer", longer=LONGER),
    Arm(name="flow-longer", spaces=("C",), modality="flow", settings_of="flow", longer=LONGER),
    way("d3d-longer", teacher="flow-longer", longer=LONGER),
    way("d3d-better-teacher", teacher="flow-longer"),
    way("d3d-centred", center_logits=True),
    Arm(
        name="multi-task-longer",
        spaces=("C",),
        loss="flow",
        settings_of="multi-task",
        longer=LONGER,
    ),
)
"""What might bring `d3d` to `two-stream`: weight, schedule, teacher, start; and what two streams
and flow prediction gain by the same."""

ARM = {arm.name: arm for arm in (*ARMS, *WAYS)}

PAIRS = {
    "two-stream": ("rgb", "flow"),
    "two-rgb": ("rgb", "second-rgb"),
    "d3d-rgb": ("d3d", "rgb"),
    "d3d-flow": ("d3d", "flow"),
}
"""Two trained networks that answer together, by the mean of their logits."""

WAY_PAIRS = {
    "two-stream-longer": ("rgb-longer", "flow-longer"),
    "two-stream-again": ("rgb-again", "flow"),
    "two-stream-motion-first": ("rgb-motion-first", "flow"),
}

CURVE = ("flow", "rgb", "d3d")
"""Arms that are trained on smaller and on biased training sets too."""

PROBED = ("rgb", "d3d", "self-distilled", "multi-task")


def second_loss(arm: Arm) -> str:
    """What the arm learns beside its labels, in words."""
    if arm.loss == "none":
        return ""
    if arm.loss == "flow":
        return "predicts flow from 3A"
    what = {"mse-logits": "logits", "kl": "softened probabilities", "mse-features": "features"}
    other = " for another clip of the class" if arm.shuffled_logits else ""
    return f"{what[arm.loss]} of {arm.teacher}{other}"
