"""A confusion matrix as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

NAMED_CLASSES = 60
"""So many classes have their names written at the axes."""


def write_confusion(path: Path, confusion_KK: np.ndarray, classes: list[str], title: str) -> None:
    """Write a PNG: rows are classes, columns what was predicted, colour the share of the row."""
    share = confusion_KK / np.maximum(confusion_KK.sum(1, keepdims=True), 1)
    side = float(np.clip(2 + 0.3 * len(classes), 4, 16))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(share, vmin=0, vmax=1, cmap="viridis")
    figure.colorbar(image, ax=axes, label="share of the class's videos")
    axes.set(xlabel="predicted", ylabel="class", title=title)
    if len(classes) <= NAMED_CLASSES:
        ticks = np.arange(len(classes))
        axes.set_xticks(ticks, classes, rotation=90)
        axes.set_yticks(ticks, classes)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
