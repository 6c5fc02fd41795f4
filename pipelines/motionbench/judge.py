"""What logits say about motions and appearances."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.motionbench.motions import MOTIONS, PALETTES, opposite

Ints = npt.NDArray[np.int64]


def parted(classes: list[str]) -> tuple[Ints, Ints]:
    """Palette and motion of each class; palette 0 where classes are motions alone."""
    names = [name.split(" ") for name in classes]
    palette_K = [PALETTES.index(name[0]) if len(name) == 2 else 0 for name in names]
    return np.array(palette_K), np.array([MOTIONS.index(name[-1]) for name in names])


def judge(
    logits_VK: npt.NDArray[np.float64], label_V: Ints, classes: list[str]
) -> dict[str, float]:
    """Shares of the videos: see criteria.toml for what each metric is."""
    palette_K, motion_K = parted(classes)
    said_V = logits_VK.argmax(1)
    found = {
        "motion": _share(motion_K[said_V] == motion_K[label_V]),
        "direction": _share(_is_direction_right(logits_VK, label_V, palette_K, motion_K)),
    }
    if len(classes) == len(MOTIONS):
        return found
    return found | {
        "composite": _share(said_V == label_V),
        "appearance": _share(palette_K[said_V] == palette_K[label_V]),
    }


def _share(right_V: npt.NDArray[np.bool_]) -> float:
    return float(right_V.mean())


def _is_direction_right(
    logits_VK: npt.NDArray[np.float64], label_V: Ints, palette_K: Ints, motion_K: Ints
) -> npt.NDArray[np.bool_]:
    """Whether a video's class is above the one of the same palette and the opposite motion."""
    places = {key: k for k, key in enumerate(zip(palette_K, motion_K, strict=True))}
    against_K = np.array([places[p, opposite(m)] for p, m in zip(palette_K, motion_K, strict=True)])
    rows = np.arange(len(label_V))
    right: npt.NDArray[np.bool_] = logits_VK[rows, label_V] > logits_VK[rows, against_K[label_V]]
    return right


def confusion(
    logits_VK: npt.NDArray[np.float64], label_V: Ints, classes: list[str]
) -> list[list[int]]:
    """Videos by motion (row) and predicted motion (column)."""
    motion_K = parted(classes)[1]
    cells = np.zeros((len(MOTIONS),) * 2, np.int64)
    np.add.at(cells, (motion_K[label_V], motion_K[logits_VK.argmax(1)]), 1)
    counts: list[list[int]] = cells.tolist()
    return counts


def together(
    one: dict[str, Any], other: dict[str, Any]
) -> tuple[npt.NDArray[np.float64], Ints, list[str]]:
    """Mean logits, labels and classes of two networks' answers to the same videos."""
    if list(one["video_V"]) != list(other["video_V"]) or list(one["classes"]) != list(
        other["classes"]
    ):
        raise ValueError("the two networks were not asked about the same videos")
    mean_VK = (one["logits_VK"] + other["logits_VK"]) / 2
    return mean_VK, one["label_V"], [str(name) for name in one["classes"]]
