"""What engines that work pair by pair share: parameters by name, input checks, the loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from flowprep.errors import FlowprepError
from flowprep.flow.base import TVL1Params
from flowprep.records import F32, U8

MIN_SIDE_PX = 3  # OpenCV's CPU code reads outside the image below this


class PairEngine:
    """`compute` and `compute_batch` on top of `_flows`, which gives one [2, H, W] per pair."""

    def compute(self, gray_THW: U8) -> F32:
        check_gray(gray_THW)
        n_frames, height, width = gray_THW.shape
        flow_T2HW = np.empty((n_frames - 1, 2, height, width), np.float32)
        if n_frames > 1:
            for flow_2HW, out_2HW in zip(self._flows(gray_THW), flow_T2HW, strict=True):
                out_2HW[:] = flow_2HW
        return flow_T2HW

    def compute_batch(self, clips: Sequence[U8]) -> list[F32]:
        return [self.compute(gray_THW) for gray_THW in clips]

    def batch_pairs(self, size_HW: tuple[int, int]) -> int:
        return 1

    def _flows(self, gray_THW: U8) -> Iterator[np.ndarray]:
        raise NotImplementedError


def tvl1_params(given: dict[str, Any]) -> TVL1Params:
    """TVL1Params from a user's names and values; an unknown name is a FlowprepError."""
    allowed = [field.name for field in fields(TVL1Params)]
    unknown = sorted(set(given) - set(allowed))
    if unknown:
        raise FlowprepError(
            f"unknown TV-L1 parameter {unknown[0]} = {given[unknown[0]]!r}",
            f"remove it; allowed: {', '.join(allowed)}",
        )
    return TVL1Params(**given)


def check_threads(threads: int) -> int:
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise FlowprepError(f"threads = {threads!r} is not possible", "give a number from 1 up")
    return threads


def check_gray(gray_THW: U8) -> None:
    """Raise ValueError unless this is uint8 [T, H, W] with T >= 1 and sides of at least 3 px."""
    dtype, shape = gray_THW.dtype, list(gray_THW.shape)
    if dtype != np.uint8 or len(shape) != 3:
        raise ValueError(f"gray_THW must be uint8 [T, H, W], got {dtype} {shape}")
    if shape[0] < 1 or min(shape[1:]) < MIN_SIDE_PX:
        raise ValueError(
            f"gray_THW needs at least 1 frame of {MIN_SIDE_PX}x{MIN_SIDE_PX} px, got {shape}"
        )


def diverged(params: TVL1Params) -> FlowprepError:
    return FlowprepError(
        f"TV-L1 diverged with tau = {params.tau}, lambda_ = {params.lambda_}, "
        f"theta = {params.theta}: the flow is not finite",
        "the defaults are tau 0.25, lambda_ 0.15, theta 0.3: go back towards them",
    )
