"""Kernel `resample`, a bilinear resize by index tables, and the tables."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowprep.flow.cpu.layout import Grid, aligned_zeros, n_blocks
from flowprep.flow.cpu.simd import F32, I32, I64, LANES, PTR, VECTOR_BYTES, Function, Value
from flowprep.flow.reference_steps import corner_positions

PARAMETERS = {
    "y_low": PTR,  # int32 [out_height]: the source row above, and below
    "y_high": PTR,
    "y_fraction": PTR,  # float32 [out_height]
    "x_low": PTR,  # int32 [out_width]: the source column to the left, and to the right
    "x_high": PTR,
    "x_fraction": PTR,
    "x_out": PTR,  # int32 [out_width]: bytes from the start of the output row
    "line": PTR,  # room for the blocks of a source row
    "source_blocks": I64,
    "out_height": I64,
    "out_width": I64,
    "source": PTR,
    "source_row_bytes": I64,
    "source_block_bytes": I64,
    "out": PTR,
    "out_row_bytes": I64,
    "scale": F32,  # of the values
}


def resample() -> Function:
    """Each output row: two source rows blended into `line`, then its columns."""
    f = Function("resample", PARAMETERS)
    with f.loop(f["out_height"]) as y:
        _blend_rows(f, y)
        out_row = f["out"] + y * f["out_row_bytes"]
        with f.loop(f["out_width"]) as x:
            low, high = (f.load(f["line"] + _index(f, n, x) * 4, F32) for n in ("x_low", "x_high"))
            value = _blend(f, low, high, f.load(f["x_fraction"] + x * 4, F32))
            f.store(value * f["scale"], out_row + _index(f, "x_out", x))
    f.give_back()
    return f


def _blend_rows(f: Function, y: Value) -> None:
    above, below = (
        f["source"] + _index(f, name, y) * f["source_row_bytes"] for name in ("y_low", "y_high")
    )
    fraction = f.splat(f.load(f["y_fraction"] + y * 4, F32))
    with f.loop(f["source_blocks"]) as i:
        at = i * f["source_block_bytes"]
        blended = _blend(f, f.load(above + at), f.load(below + at), fraction)
        f.store(blended, f["line"] + i * VECTOR_BYTES)


def _blend(f: Function, a: Value, b: Value, fraction: Value) -> Value:
    return f.fma(fraction, b - a, a)


def _index(f: Function, table: str, at: Value) -> Value:
    return f.convert("sext", f.load(f[table] + at * 4, I32), I64)


class Resizer:
    """Resizes grids of one size to another, sampling output pixel n at n * step of the source."""

    def __init__(
        self,
        program: Any,
        source_HW: tuple[int, int],
        out_HW: tuple[int, int],
        step_HW: tuple[float, float],
        out_block_bytes: int,
    ) -> None:
        self._program = program
        y, x = (_linear_taps(*axis) for axis in zip(source_HW, out_HW, step_HW, strict=True))
        block, lane = np.divmod(np.arange(out_HW[1], dtype=np.int32), LANES)
        x_out = block * np.int32(out_block_bytes) + lane * np.int32(4)
        line = aligned_zeros(LANES * n_blocks(source_HW[1]))
        self._tables = (*y, *x, x_out, line)  # the kernel reads them: they must live
        addresses = (table.ctypes.data for table in self._tables)
        self._fixed = (*addresses, n_blocks(source_HW[1]), *out_HW)

    def __call__(self, source: Grid, out: Grid, scale: float = 1.0) -> None:
        self._program.resample(
            *self._fixed,
            source.address,
            source.row_bytes,
            source.block_bytes,
            out.address,
            out.row_bytes,
            scale,
        )


def _linear_taps(n_source: int, n_out: int, step: float) -> tuple[np.ndarray, ...]:
    """Indices int32 below and above each output position, and its fraction float32 between."""
    positions = corner_positions(n_out, step)
    low = np.minimum(np.floor(positions).astype(np.int32), n_source - 1)
    high = np.minimum(low + 1, n_source - 1)
    return low, high, (positions - low).astype(np.float32)
