"""Flow that came with its frames: a name and parameters for each sample's json, no computing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from flowprep.errors import FlowprepError
from flowprep.records import U8


class Imported:
    """The engine of a dataset made by `flowprep import`. `fps` is the rate of the frames."""

    name = "imported"
    build = "read from images"

    def __init__(
        self, *, device: int | None = None, threads: int = 1, style: str = "", fps: float = 0.0
    ) -> None:
        self.params = {"style": style, "fps": fps}

    def compute(self, gray_THW: U8) -> NoReturn:
        raise FlowprepError(
            "flow that came with its frames is not computed", "choose another --engine"
        )

    def compute_batch(self, clips: Sequence[U8]) -> NoReturn:
        self.compute(clips[0])

    def batch_pairs(self, size_HW: tuple[int, int]) -> int:
        return 1
