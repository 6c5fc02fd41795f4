"""Kernel `sweep`: iterations of TV-L1 over the state of a level, several in one pass over memory.

An iteration updates u from p (threshold step and divergence), then p from u. Both happen in one
go: u of row y, and at once p of row y - 1, whose lower neighbour is now known. After that the
next iteration can update u of row y - 1, so a wave of iterations runs down the frame one row
behind the other, while the rows are in the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flowprep.flow.cpu.layout import BLOCK_BYTES, FIELD_BYTES
from flowprep.flow.cpu.simd import (
    F32,
    F64,
    I32,
    I64,
    LANES,
    PTR,
    VECTOR,
    Function,
    Value,
    Variable,
)

PARAMETERS = {
    "state": PTR,  # row 0, block 0
    "row_bytes": I64,
    "height": I64,
    "width": I64,
    "n_blocks": I64,
    "n_iterations": I64,
    "wave": I64,  # iterations per pass over memory, at most
    "l_t": F32,  # lambda * theta
    "theta": F32,
    "taut": F32,  # tau / theta
}


def sweep() -> Function:
    """Returns sum |u_new - u_old|^2 of the last of `n_iterations`, float64."""
    f = Function("sweep", PARAMETERS, returns=F64)
    rows = _Rows(f)
    done = Variable(f, f.constant(0, I64))
    with f.loop_while(lambda: done.value < f["n_iterations"]):
        start = done.value
        n = f.minimum(f["wave"], f["n_iterations"] - start)
        with f.loop(f["height"] + n) as front, f.loop(n) as lag:
            is_last = (start + lag).equals(f["n_iterations"] - 1)
            _emit_row(f, rows, front - lag, is_last)
        done.value = start + n
    f.give_back(rows.error.value)
    return f


def _emit_row(f: Function, rows: _Rows, y: Value, is_last: Value) -> None:
    is_inside = (y > -1) & (y < f["height"])
    with f.when(is_inside & ~is_last):
        rows.update(y)
    with f.when(is_inside & is_last):
        rows.update_with_error(y)
    with f.when(y.equals(f["height"])):
        rows.update_last_p(y)


@dataclass(frozen=True)
class _Pair:
    """Something of u and the same of v, in 16 pixels."""

    u: Value
    v: Value


def _both(operation: Callable[..., Value], *pairs: _Pair) -> _Pair:
    return _Pair(operation(*(p.u for p in pairs)), operation(*(p.v for p in pairs)))


class _Block:
    """16 pixels of the state."""

    def __init__(self, f: Function, at: Value) -> None:
        self._f, self._at = f, at

    def __getitem__(self, field: str) -> Value:
        return self._f.load(self._at + FIELD_BYTES[field])

    def __setitem__(self, field: str, value: Value) -> None:
        self._f.store(value, self._at + FIELD_BYTES[field])

    @property
    def flow(self) -> _Pair:
        return _Pair(self["u"], self["v"])

    @flow.setter
    def flow(self, pair: _Pair) -> None:
        self["u"], self["v"] = pair.u, pair.v

    @property
    def p_x(self) -> _Pair:
        return _Pair(self["p11"], self["p21"])

    @property
    def p_y(self) -> _Pair:
        return _Pair(self["p12"], self["p22"])

    def set_p(self, p_x: _Pair, p_y: _Pair) -> None:
        self["p11"], self["p21"] = p_x.u, p_x.v
        self["p12"], self["p22"] = p_y.u, p_y.v

    def next(self) -> _Block:
        return _Block(self._f, self._at + BLOCK_BYTES)


class _Carry:
    """A pair that one block hands to the next in its row."""

    def __init__(self, f: Function, start: _Pair) -> None:
        self._u, self._v = Variable(f, start.u), Variable(f, start.v)

    def swap(self, pair: _Pair) -> _Pair:
        """What the last block left; `pair` is for the next one."""
        left = _Pair(self._u.value, self._v.value)
        self._u.value, self._v.value = pair.u, pair.v
        return left


class _Rows:
    """Emits what one iteration does to a row."""

    def __init__(self, f: Function) -> None:
        self._f = f
        self._zero = f.constant(0.0, VECTOR)
        self._l_t, self._theta = f.splat(f["l_t"]), f.splat(f["theta"])
        self.error = Variable(f, f.constant(0.0, F64))

    def update(self, y: Value, error: Variable | None = None) -> None:
        """u of row y and p of row y - 1. In the zeros above row 0, taut = 0 keeps p at 0."""
        taut = self._f.splat(self._f.select(y > 0, self._f["taut"], 0.0))
        p_x_left = _Carry(self._f, _Pair(self._zero, self._zero))
        flow_above = _Carry(self._f, self._block(y - 1).flow)
        with self._f.loop(self._f["n_blocks"]) as i:
            here, above = self._block(y, i), self._block(y - 1, i)
            p_x, p_y = above.p_x, above.p_y
            flow = self._update_u(here, p_x_left, p_y, error)
            right = above.next().flow
            old = flow_above.swap(right)
            dx, dy = self._x_difference(i, old, right), _both(Value.__sub__, flow, old)
            above.set_p(*self._updated_p(p_x, p_y, dx, dy, taut))

    def update_with_error(self, y: Value) -> None:
        error = Variable(self._f, self._zero)
        self.update(y, error)
        self.error.value = self.error.value + self._f.sum_lanes(error.value)

    def update_last_p(self, y: Value) -> None:
        """p of row y - 1, the last one: nothing lies below."""
        taut, dy = self._f.splat(self._f["taut"]), _Pair(self._zero, self._zero)
        with self._f.loop(self._f["n_blocks"]) as i:
            last = self._block(y - 1, i)
            dx = self._x_difference(i, last.flow, last.next().flow)
            last.set_p(*self._updated_p(last.p_x, last.p_y, dx, dy, taut))

    def _block(self, y: Value, number: Value | int = 0) -> _Block:
        f = self._f
        offset = f.constant(number, I64) * BLOCK_BYTES
        return _Block(f, f["state"] + y * f["row_bytes"] + offset)

    def _update_u(
        self, here: _Block, p_x_left: _Carry, p_y_above: _Pair, error: Variable | None
    ) -> _Pair:
        f, gradient, old = self._f, _Pair(here["gx"], here["gy"]), here.flow
        rho = f.fma(gradient.u, old.u, f.fma(gradient.v, old.v, here["rho_c"]))
        factor = f.maximum(f.minimum(rho * here["step"], self._l_t), 0.0 - self._l_t)
        p_x, p_y = here.p_x, here.p_y
        before = _both(self._shifted_right, p_x_left.swap(p_x), p_x)
        divergence = _both(lambda x, b, y, a: x - b + y - a, p_x, before, p_y, p_y_above)
        new = _both(
            lambda u, g, d: f.fma(self._theta, d, f.fma(factor, g, u)), old, gradient, divergence
        )
        here.flow = new
        if error:
            change = _both(Value.__sub__, new, old)
            error.value = f.fma(change.u, change.u, f.fma(change.v, change.v, error.value))
        return new

    def _updated_p(
        self, p_x: _Pair, p_y: _Pair, dx: _Pair, dy: _Pair, taut: Value
    ) -> tuple[_Pair, _Pair]:
        """(p + taut grad u) / (1 + taut |grad u|), both components with one division.

        The product of the divisors is in float32's range for all that TVL1Params admits.
        """
        f, one = self._f, self._f.constant(1.0, VECTOR)
        length = _both(lambda x, y: f.sqrt(f.fma(y, y, x * x)), dx, dy)
        divisor = _both(lambda n: f.fma(taut, n, one), length)
        inverse = one / (divisor.u * divisor.v)
        scale = _Pair(inverse * divisor.v, inverse * divisor.u)
        p_x = _both(lambda p, d, s: f.fma(taut, d, p) * s, p_x, dx, scale)
        return p_x, _both(lambda p, d, s: f.fma(taut, d, p) * s, p_y, dy, scale)

    def _x_difference(self, i: Value, flow: _Pair, right: _Pair) -> _Pair:
        """Forward difference in x, 0 at the last column and beyond."""
        f = self._f
        last_column = f.convert("trunc", f["width"] - 1 - i * LANES, I32)
        is_before = f.lane_numbers() < f.splat(last_column)
        return _both(
            lambda u, r: f.select(is_before, self._shifted_left(u, r) - u, 0.0), flow, right
        )

    def _shifted_right(self, before: Value, vector: Value) -> Value:
        return self._f.shuffle(before, vector, range(LANES - 1, 2 * LANES - 1))

    def _shifted_left(self, vector: Value, after: Value) -> Value:
        return self._f.shuffle(vector, after, range(1, LANES + 1))
