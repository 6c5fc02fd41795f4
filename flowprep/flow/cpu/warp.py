"""Kernels `taps` and `linearise`: the gradient of frame 1, and its bicubic warp by the flow.

The warp needs I, dI/dx and dI/dy of frame 1 at 16 neighbours of each position. `taps` lays the
three side by side for each pixel, so that four neighbours in a row are one vector, and `linearise`
adds up four such vectors: no gathers, and one pass for all three images.
"""

from __future__ import annotations

from flowprep.flow.cpu.layout import BLOCK_BYTES, FIELD_BYTES, TAP_BORDER, TAP_BYTES
from flowprep.flow.cpu.simd import (
    F32,
    I32,
    I64,
    INTEGERS,
    LANES,
    PTR,
    VECTOR,
    VECTOR_BYTES,
    Function,
    Value,
)

KEYS_TAPS = (  # Keys' cubic kernel, a = -0.5: weights of taps -1, 0, 1, 2 by powers of the fraction
    (0.0, -0.5, 1.0, -0.5),
    (1.0, 0.0, -2.5, 1.5),
    (0.0, 0.5, 2.0, -1.5),
    (0.0, 0.0, -0.5, 0.5),
)
TINY_GRADIENT = 1e-30
"""|g|^2 counts as at least this, so that 1 / |g|^2 is finite.

The canon stops the Newton step at |g|^2 = 1.2e-7 already; here it goes on, at most
lambda theta |g| long and only where |rho| is within lambda theta |g|^2.
"""

TAPS_PARAMETERS = {
    "plane": PTR,  # pixel (0, 0)
    "plane_row_bytes": I64,
    "taps": PTR,  # pixel (0, 0)
    "taps_row_bytes": I64,
    "height": I64,
    "n_blocks": I64,
}
LINEARISE_PARAMETERS = {
    "state": PTR,  # row 0, block 0
    "row_bytes": I64,
    "plane_0": PTR,  # frame 0, pixel (0, 0)
    "plane_row_bytes": I64,
    "taps_1": PTR,  # frame 1, pixel (0, 0)
    "taps_row_bytes": I64,
    "height": I64,
    "width": I64,
    "n_blocks": I64,
}


def taps() -> Function:
    """Lay out a plane and its central differences; the plane has its border, the taps get none."""
    f = Function("taps", TAPS_PARAMETERS)
    half, zero = f.constant(0.5, VECTOR), f.constant(0.0, VECTOR)
    row_bytes = f["plane_row_bytes"]
    with f.loop(f["height"]) as y, f.loop(f["n_blocks"]) as i:
        at = f["plane"] + y * row_bytes + i * VECTOR_BYTES
        image, left, right, above, below = (
            f.load(at + offset, aligned=False) for offset in (0, -4, 4, 0 - row_bytes, row_bytes)
        )
        dx, dy = (right - left) * half, (below - above) * half
        out = f["taps"] + y * f["taps_row_bytes"] + i * (LANES * TAP_BYTES)
        for number, vector in enumerate(_interleave(f, image, dx, dy, zero)):
            f.store(vector, out + number * VECTOR_BYTES, aligned=False)
    f.give_back()
    return f


def linearise() -> Function:
    """Set gx, gy, step and rho_c of the state: frame 1 warped by its u and v, less frame 0."""
    f = Function("linearise", LINEARISE_PARAMETERS)
    warp = _Warp(f)
    with f.loop(f["height"]) as y, f.loop(f["n_blocks"]) as i:
        block = f["state"] + y * f["row_bytes"] + i * BLOCK_BYTES
        frame_0 = f["plane_0"] + y * f["plane_row_bytes"] + i * VECTOR_BYTES
        u, v = (f.load(block + FIELD_BYTES[name]) for name in ("u", "v"))
        x = f.lane_numbers() + f.splat(f.convert("trunc", i * LANES, I32))
        image, gx, gy = warp.at(x, f.splat(f.convert("trunc", y, I32)), u, v)
        square = f.maximum(f.fma(gx, gx, gy * gy), TINY_GRADIENT)
        rho_c = image - f.fma(gx, u, gy * v) - f.load(frame_0)
        is_inside = x < f.splat(f.convert("trunc", f["width"], I32))
        step = -1.0 / square
        for name, value in zip(("gx", "gy", "step", "rho_c"), (gx, gy, step, rho_c), strict=True):
            f.store(f.select(is_inside, value, 0.0), block + FIELD_BYTES[name])
    f.give_back()
    return f


class _Warp:
    """Emits the bicubic sample of (I, dI/dx, dI/dy) at 16 positions, indices clamped."""

    def __init__(self, f: Function) -> None:
        self._f = f
        self._width, self._height = (
            f.splat(f.convert("sitofp", f[name], F32)) for name in ("width", "height")
        )
        self._columns, self._rows = f.reserve(INTEGERS), f.reserve(INTEGERS)
        self._fractions_x = f.reserve(VECTOR)
        self._weights_y = [f.reserve(VECTOR) for _ in KEYS_TAPS]
        self._tap_polynomials = [
            f.vector([tap[power] for tap in KEYS_TAPS for _ in range(4)]) for power in range(4)
        ]

    def at(self, x: Value, y: Value, u: Value, v: Value) -> list[Value]:
        """I, dI/dx and dI/dy at (x + u, y + v)."""
        f = self._f
        column, fraction_x = self._split(x, u, self._width)
        row, fraction_y = self._split(y, v, self._height)
        f.store(column, self._columns)
        f.store(row, self._rows)
        f.store(fraction_x, self._fractions_x)
        for tap, weights in zip(KEYS_TAPS, self._weights_y, strict=True):
            f.store(self._polynomial(fraction_y, [f.constant(c, VECTOR) for c in tap]), weights)
        quads = [self._four_pixels(first) for first in range(0, LANES, 4)]
        return _deinterleave(f, quads)[:3]

    def _split(self, start: Value, shift: Value, side: Value) -> tuple[Value, Value]:
        """Whole part as integers, so that its taps end within their border, and fraction."""
        f = self._f
        position = f.convert("sitofp", start, VECTOR) + shift
        whole = f.floor(position)
        inside = f.maximum(f.minimum(whole, side), 1.0 - TAP_BORDER)
        return f.convert("fptosi", inside, INTEGERS), position - whole

    def _polynomial(self, t: Value, coefficients: list[Value]) -> Value:
        c0, c1, c2, c3 = coefficients
        f = self._f
        return f.fma(t, f.fma(t, f.fma(t, c3, c2), c1), c0)

    def _four_pixels(self, first: int) -> Value:
        """(I, dI/dx, dI/dy, 0) of four pixels: the four groups of each vector added up."""
        f = self._f
        a, b, c, d = (self._weighted_taps(first + n) for n in range(4))
        ab, cd = (
            f.shuffle(p, q, [*range(8), *range(16, 24)])
            + f.shuffle(p, q, [*range(8, 16), *range(24, 32)])
            for p, q in ((a, b), (c, d))
        )
        even = [*range(4), *range(8, 12), *range(16, 20), *range(24, 28)]
        return f.shuffle(ab, cd, even) + f.shuffle(ab, cd, [lane + 4 for lane in even])

    def _weighted_taps(self, lane: int) -> Value:
        """Four columns of four numbers: the columns' weighted sums of four rows, weighted."""
        f = self._f
        corner = self._first_tap(lane)
        rows = [f.load(corner + f["taps_row_bytes"] * n, aligned=False) for n in range(4)]
        weights = [f.splat(f.load(w + 4 * lane, F32)) for w in self._weights_y]
        total = rows[0] * weights[0]
        for row, weight in zip(rows[1:], weights[1:], strict=True):
            total = f.fma(row, weight, total)
        t = f.splat(f.load(self._fractions_x + 4 * lane, F32))
        return total * self._polynomial(t, self._tap_polynomials)

    def _first_tap(self, lane: int) -> Value:
        f = self._f
        column, row = (
            f.convert("sext", f.load(at + 4 * lane, I32), I64) - 1
            for at in (self._columns, self._rows)
        )
        return f["taps_1"] + row * f["taps_row_bytes"] + column * TAP_BYTES


def _interleave(f: Function, a: Value, b: Value, c: Value, d: Value) -> list[Value]:
    """a0 b0 c0 d0 a1 b1 ... in four vectors."""
    halves = [[k + n * LANES for k in half for n in range(2)] for half in (range(8), range(8, 16))]
    pairs = [(f.shuffle(a, b, half), f.shuffle(c, d, half)) for half in halves]
    quarters = [
        [k + n * LANES + m for k in range(start, start + 8, 2) for n in range(2) for m in range(2)]
        for start in (0, 8)
    ]
    return [f.shuffle(ab, cd, quarter) for ab, cd in pairs for quarter in quarters]


def _deinterleave(f: Function, vectors: list[Value]) -> list[Value]:
    """a0 a1 ..., b0 b1 ..., c0 c1 ..., d0 d1 ... of what `_interleave` makes."""
    out = []
    for number in range(4):
        every_fourth = [n * LANES + k for n in range(2) for k in range(number, LANES, 4)]
        first, second = (f.shuffle(vectors[n], vectors[n + 1], every_fourth * 2) for n in (0, 2))
        out.append(f.shuffle(first, second, [*range(8), *range(16, 24)]))
    return out
