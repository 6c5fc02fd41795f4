"""What was tried to bring D3D to two streams, and how much each helped."""

from __future__ import annotations

from statistics import mean

from pipelines.motionbench.arms import ARM, PAIRS, WAY_PAIRS, WAYS
from pipelines.motionbench.findings import Results, paired, points

WAY_NAMES = ("d3d", "two-stream", *(arm.name for arm in WAYS), *WAY_PAIRS)


def gains(results: Results, name: str) -> list[str]:
    """Composite accuracy over that of `d3d` and over that of `two-stream`."""
    what = {"metric": "composite", "space": "C"}
    over = (paired(results, what, name, than, results.n_main) for than in ("d3d", "two-stream"))
    return [points(mean(found)) if found else "" for found in over]


def what_is_other(name: str) -> str:
    """What sets a way apart from the arm that it varies, in words."""
    if name not in ARM:
        return " + ".join((PAIRS | WAY_PAIRS)[name])
    arm, told = ARM[name], []
    if arm.longer != 1:
        told.append(f"{arm.longer:g} times the steps")
    if arm.weight is not None:
        told.append(f"weight {arm.weight:g}")
    if arm.center_logits:
        told.append("logits without their mean")
    if arm.teacher not in ("", "flow"):
        told.append(f"teacher {arm.teacher}")
    if arm.starts_from:
        space, name = arm.starts_from
        told.append(f"starts with the weights of {name} ({space})")
    return ", ".join(told)
