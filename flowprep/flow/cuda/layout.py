"""What the kernels are told, and where a batch lies in device memory: the structs of tvl1.cu."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from flowprep.flow.base import TVL1Params
from flowprep.flow.reference_steps import level_sizes_HW
from flowprep.quantize import Quantizer

MAX_STEPS = 8  # iterations in one pass over memory
COLUMNS = 64  # of a strip, which one warp works on
STRIDE = COLUMNS - 2 * MAX_STEPS
BAND_ROWS = 32
ALIGNMENT = 256
QUAD_BYTES = 16

DIVERGED = 3  # a phase
I32, I64, F32, F64, POINTER = np.int32, np.int64, np.float32, np.float64, np.uint64

LEVEL = np.dtype(
    [(name, I32) for name in ("height", "width", "quads", "strips", "blocks", "bands")]
    + [("pixels_before", I64), ("limit", F64), ("step_y", F32), ("step_x", F32)],
    align=True,
)
SECTIONS = (
    *(
        "frames",
        "images",
        "taps",
        "states",
        "terms",
        "controls",
        "available",
        "left",
        "counts",
        "errors",
    ),
    *("first_frames", "finished", "out", "stats", "levels"),
)
JOB = np.dtype(
    [(name, POINTER) for name in SECTIONS]
    + [("frame_pixels", I64), ("slice_ns", I64)]
    + [
        (name, I32)
        for name in ("n_workers", "n_frames", "n_pairs", "n_levels", "n_warps", "n_iterations")
    ]
    + [("state_quads", I32), ("errors_per_pair", I32)]
    + [(name, F32) for name in ("l_t", "theta", "taut", "shrink", "flow_scale")]
    + [("code_bytes", I32)]
    + [(name, F32) for name in ("codes_per_px", "zero_code", "lowest_code", "highest_code")]
    + [("bound_px", F32)],
    align=True,
)
CONTROL = np.dtype(
    [(name, I32) for name in ("phase", "level", "warp", "side", "n_done", "n_now")]
    + [("until_check", I32), ("task_rows", I32)],
    align=True,
)


@dataclass(frozen=True)
class Geometry:
    """The pyramid levels of one frame size, and what a frame and a pair take in memory."""

    levels: np.ndarray  # LEVEL
    n_warps: int

    @classmethod
    def of(cls, size_HW: tuple[int, int], params: TVL1Params) -> Geometry:
        sizes = level_sizes_HW(*size_HW, params.n_scales, params.scale_step)
        levels = np.zeros(len(sizes), LEVEL)
        for level, (height, width) in zip(levels, sizes, strict=True):
            level["height"], level["width"] = height, width
            level["bands"] = -(-height // BAND_ROWS)
            level["quads"] = -(-width // 2)
            level["strips"] = 1 + max(0, -(-(width - COLUMNS) // STRIDE))
            level["blocks"] = -(-level["quads"] // 32)
            level["limit"] = params.epsilon**2 * height * width
        levels["pixels_before"] = np.cumsum([0, *(h * w for h, w in sizes)])[:-1]
        for level, (fine, coarse) in zip(levels, pairwise(sizes), strict=False):
            level["step_y"], level["step_x"] = (
                1 / (f / c) for f, c in zip(fine, coarse, strict=True)
            )
        return cls(levels, params.n_warps)

    @property
    def size_HW(self) -> tuple[int, int]:
        return int(self.levels[0]["height"]), int(self.levels[0]["width"])

    @property
    def frame_pixels(self) -> int:
        return sum(int(level["height"]) * int(level["width"]) for level in self.levels)

    @property
    def state_quads(self) -> int:
        return self.size_HW[0] * int(self.levels[0]["quads"])

    @property
    def errors_per_pair(self) -> int:
        return int(self.levels[0]["strips"] * self.levels[0]["bands"])

    def section_bytes(self, n_frames: int, n_pairs: int, code_bytes: int) -> dict[str, int]:
        pixels, quads = math.prod(self.size_HW), QUAD_BYTES * self.state_quads
        return {
            "frames": n_frames * pixels,
            "images": n_frames * self.frame_pixels * 4,
            "taps": n_frames * self.frame_pixels * QUAD_BYTES,
            "states": n_pairs * 6 * quads,
            "terms": n_pairs * 2 * quads,
            "controls": n_pairs * CONTROL.itemsize,
            "available": n_pairs * 4,
            "left": n_pairs * 4,
            "counts": n_pairs * len(self.levels) * self.n_warps * 4,
            "errors": n_pairs * self.errors_per_pair * 8,
            "first_frames": n_pairs * 4,
            "finished": 4,
            "out": n_pairs * 2 * pixels * code_bytes,
            "stats": n_pairs * int(self.levels[0]["bands"]) * 3 * 8,
            "levels": self.levels.nbytes,
        }

    def bytes_for(self, n_frames: int, n_pairs: int) -> int:
        """Device memory of a batch with float32 flow."""
        sections = self.section_bytes(n_frames, n_pairs, 4)
        return _aligned(JOB.itemsize) + sum(_aligned(n) for n in sections.values())


@dataclass(frozen=True)
class Codes:
    """How flow leaves the device: as it is, or as codes of a quantiser."""

    bytes: int = 4  # 4: float32, 1 and 2: codes
    per_px: float = 1.0
    zero: float = 0.0
    lowest: int = 0
    highest: int = 0
    bound_px: float = math.inf

    @classmethod
    def of(cls, quantizer: Quantizer) -> Codes:
        return cls(
            bytes=np.dtype(quantizer.dtype).itemsize,
            per_px=1 / quantizer.px_per_code,
            zero=quantizer.zero_code,
            lowest=quantizer.lowest,
            highest=quantizer.highest,
            bound_px=quantizer.bound_px,
        )

    @property
    def dtype(self) -> Any:
        return {4: np.float32, 1: np.uint8, 2: np.uint16}[self.bytes]


FLOAT32 = Codes()


@dataclass(frozen=True)
class Batch:
    """Where a batch's sections lie in device memory, and the job that names them."""

    addresses: dict[str, int]
    sizes: dict[str, int]
    job: np.ndarray  # JOB, to lie at the start
    first_frames: np.ndarray  # int32 [pairs]


def lay_out(
    geometry: Geometry,
    params: TVL1Params,
    run_lengths: Sequence[int],
    codes: Codes,
    address: int,
    n_workers: int,
    slice_ns: int,
) -> Batch:
    """A batch of runs of successive frames, in memory that starts at `address`."""
    starts = np.cumsum([0, *run_lengths])
    firsts = [np.arange(a, b - 1) for a, b in pairwise(starts)]
    first_frames = np.concatenate(firsts).astype(I32)
    sizes = geometry.section_bytes(int(starts[-1]), len(first_frames), codes.bytes)
    addresses, end = {}, address + _aligned(JOB.itemsize)
    for name in SECTIONS:
        addresses[name], end = end, end + _aligned(sizes[name])
    fields: dict[str, Any] = {
        **addresses,
        "frame_pixels": geometry.frame_pixels,
        "slice_ns": slice_ns,
        "n_workers": n_workers,
        "n_frames": starts[-1],
        "n_pairs": len(first_frames),
        "n_levels": len(geometry.levels),
        "n_warps": params.n_warps,
        "n_iterations": params.n_iterations,
        "state_quads": geometry.state_quads,
        "errors_per_pair": geometry.errors_per_pair,
        "l_t": params.lambda_ * params.theta,
        "theta": params.theta,
        "taut": params.tau / params.theta,
        "shrink": 1 / params.scale_step,
        "flow_scale": 1 / params.scale_step,
        "code_bytes": codes.bytes,
        "codes_per_px": codes.per_px,
        "zero_code": codes.zero,
        "lowest_code": codes.lowest,
        "highest_code": codes.highest,
        "bound_px": codes.bound_px,
    }
    job = np.zeros((), JOB)
    for name, value in fields.items():
        job[name] = value
    return Batch(addresses, sizes, job, first_frames)


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT
