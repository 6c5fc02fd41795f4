"""Where the numbers of one pyramid level lie in memory, for NumPy and for the kernels.

All of it is float32 and starts at multiples of 64 bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flowprep.flow.cpu.simd import LANES, VECTOR_BYTES
from flowprep.records import F32

FIELDS = ("gx", "gy", "step", "rho_c", "u", "v", "p11", "p12", "p21", "p22")
"""gx, gy: gradient g of the warped frame 1; step: -1 / |g|^2; p11, p12: the dual variable of u."""

FIELD_BYTES = {name: number * VECTOR_BYTES for number, name in enumerate(FIELDS)}
BLOCK_BYTES = len(FIELDS) * VECTOR_BYTES
TAP_BYTES = 16
TAP_BORDER = 3
PLANE_BORDER = 1


def n_blocks(width: int) -> int:
    """Blocks of 16 pixels that hold a row."""
    return -(-width // LANES)


def aligned_zeros(*shape: int) -> F32:
    n_bytes = 4 * math.prod(shape)
    raw = np.zeros(n_bytes + VECTOR_BYTES, np.uint8)
    start = -raw.ctypes.data % VECTOR_BYTES
    return raw[start : start + n_bytes].view(np.float32).reshape(shape)


@dataclass(frozen=True)
class Grid:
    """One image in memory: the address of pixel (0, 0), and the steps to the next row and block."""

    address: int
    row_bytes: int
    block_bytes: int


class State:
    """All that an iteration reads and writes, `rows`: [1 + H + 1, 1 + blocks, 10, 16].

    A block is 16 pixels, their ten fields one after the other, so one pointer reaches all of it
    and a row is one stream. Zero, and staying so: the block left of x = 0, the row above y = 0,
    and the lanes beyond the width.
    """

    def __init__(self, height: int, width: int) -> None:
        self.rows = aligned_zeros(height + 2, 1 + n_blocks(width), len(FIELDS), LANES)
        self.height, self.width = height, width
        self.origin = self.grid(FIELDS[0])

    def grid(self, field: str) -> Grid:
        first = self.rows[1, 1, FIELDS.index(field)]
        return Grid(first.ctypes.data, self.rows.strides[0], BLOCK_BYTES)

    def clear_from(self, field: str) -> None:
        """Zero that field and those after it."""
        self.rows[1:-1, 1:, FIELDS.index(field) :] = 0

    def copy_field(self, name: str, out_HW: F32) -> None:
        """To an array whose rows are contiguous."""
        blocks = self.rows[1:-1, 1:, FIELDS.index(name)]
        n_whole, rest = divmod(self.width, LANES)
        whole = out_HW[:, : n_whole * LANES].reshape(self.height, n_whole, LANES)
        whole[...] = blocks[:, :n_whole]
        if rest:
            out_HW[:, n_whole * LANES :] = blocks[:, n_whole, :rest]


class Plane:
    """An image with a border of one pixel that repeats the edge."""

    def __init__(self, height: int, width: int) -> None:
        rows, columns = height + 2 * PLANE_BORDER, LANES * (n_blocks(width) + 2)
        self._padded = aligned_zeros(rows, columns)
        self.image = self._padded[PLANE_BORDER:-PLANE_BORDER, LANES : LANES + width]
        self.grid = Grid(self.image.ctypes.data, self._padded.strides[0], VECTOR_BYTES)

    def repeat_edges(self) -> None:
        width = self.image.shape[1]
        _repeat_edges(self._padded[:, LANES - 1 : LANES + width + 1], PLANE_BORDER)


class Taps:
    """An image and its gradient for the warp, [3 + H + 3, 3 + W + 3 or more, 4].

    A pixel is (I, dI/dx, dI/dy, 0), so the four pixels that a row of a bicubic sample needs are
    64 bytes in a row. The border of three pixels repeats the edge.
    """

    def __init__(self, height: int, width: int) -> None:
        columns = LANES * n_blocks(width) + 2 * TAP_BORDER
        self._padded = aligned_zeros(height + 2 * TAP_BORDER, columns, 4)
        self.width = width
        first = self._padded[TAP_BORDER, TAP_BORDER]
        self.grid = Grid(first.ctypes.data, self._padded.strides[0], LANES * TAP_BYTES)

    def repeat_edges(self) -> None:
        _repeat_edges(self._padded[:, : self.width + 2 * TAP_BORDER], TAP_BORDER)


def _repeat_edges(padded: F32, border: int) -> None:
    """Fill `border` rows and columns on each side with the nearest pixel inside."""
    inside = slice(border, -border)
    padded[inside, :border] = padded[inside, border : border + 1]
    padded[inside, -border:] = padded[inside, -border - 1 : -border]
    padded[:border] = padded[border]
    padded[-border:] = padded[-border - 1]
