"""Each operation of the vector language against NumPy, run on this processor."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowprep.flow.cpu.jit import Program
from flowprep.flow.cpu.layout import aligned_zeros
from flowprep.flow.cpu.simd import (
    F32,
    F64,
    I32,
    I64,
    INTEGERS,
    LANES,
    PTR,
    VECTOR,
    VECTOR_BYTES,
    Function,
    Value,
    Variable,
)

Floats = list[float]
some_floats = st.lists(
    st.floats(width=32, min_value=-(2.0**40), max_value=2.0**40), min_size=LANES, max_size=LANES
)


def run(build: Callable[..., Value], *vectors: np.ndarray | Floats) -> np.ndarray:
    """float32 [16]: what `build(f, a, b, ...)` gives for 16 lanes."""
    f = Function("probe", {"data": PTR, "out": PTR})
    values = [f.load(f["data"] + n * VECTOR_BYTES) for n in range(len(vectors))]
    f.store(build(f, *values), f["out"])
    f.give_back()
    data, out = aligned_zeros(LANES * max(1, len(vectors))), aligned_zeros(LANES)
    data[: LANES * len(vectors)] = np.array(vectors, np.float32).ravel()
    Program([f]).probe(data.ctypes.data, out.ctypes.data)
    return out


def run_scalar(build: Callable[[Function], Value], **arguments: int) -> float:
    f = Function("probe", dict.fromkeys(arguments, I64), returns=F64)
    f.give_back(build(f))
    return Program([f]).probe(*arguments.values())


A = np.array([-3, -2.5, -1, -0.5, -0.0, 0, 0.25, 0.5, 1, 1.5, 2, 3.75, 7, 100, 1e-30, 1e30], "f4")
B = np.roll(A, 5) + np.float32(0.125)


@pytest.mark.parametrize(
    ("build", "want"),
    [
        (lambda f, a, b: a + b, A + B),
        (lambda f, a, b: a - b, A - B),
        (lambda f, a, b: a * b, A * B),
        (lambda f, a, b: a / b, A / B),
        (lambda f, a, b: 2.0 - a, 2 - A),
        (lambda f, a, b: -1.0 / b, -1 / B),
        (lambda f, a, b: a * 0.1, A * np.float32(0.1)),
        (lambda f, a, b: f.minimum(a, b), np.minimum(A, B)),
        (lambda f, a, b: f.maximum(a, 0.5), np.maximum(A, np.float32(0.5))),
        (lambda f, a, b: f.select(a < b, a, 9.0), np.where(A < B, A, np.float32(9))),
        (
            lambda f, a, b: f.select((a > 0.0) & ~(b > 0.0), a, b),
            np.where((A > 0) & (B <= 0), A, B),
        ),
        (lambda f, a, b: f.floor(a), np.floor(A)),
        (lambda f, a, b: f.sqrt(f.maximum(a, 0.0)), np.sqrt(np.maximum(A, 0))),
        (lambda f, a, b: f.shuffle(a, b, range(15, 31)), np.r_[A[15], B[:15]]),
        (lambda f, a, b: f.shuffle(a, b, range(1, 17)), np.r_[A[1:], B[0]]),
        (lambda f, a, b: f.vector(range(16)), np.arange(16)),
        (lambda f, a, b: f.splat(f.load(f["data"] + 4 * 3, F32)), np.full(16, A[3])),
        (lambda f, a, b: f.convert("sitofp", f.lane_numbers() + 3, VECTOR), np.arange(3, 19)),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_a_vector_operation_is_numpys(build: Callable[..., Value], want: np.ndarray) -> None:
    np.testing.assert_array_equal(run(build, A, B), want.astype(np.float32))


def test_limits_replace_what_is_not_a_number() -> None:
    nothing = np.full(LANES, np.nan, np.float32)
    assert (run(lambda f, a: f.minimum(a, 5.0), nothing) == 5).all()
    assert (run(lambda f, a: f.maximum(a, -2.0), nothing) == -2).all()


def test_whole_numbers_come_back_as_integers() -> None:
    def truncated(f: Function, a: Value) -> Value:
        return f.convert("sitofp", f.convert("fptosi", a, INTEGERS), VECTOR)

    some = np.arange(LANES) * 1.75 - 9
    np.testing.assert_array_equal(run(truncated, some), np.trunc(some))


@given(some_floats, some_floats, some_floats)
def test_fma_rounds_once(a: Floats, b: Floats, c: Floats) -> None:
    exact = [Fraction(x) * Fraction(y) + Fraction(z) for x, y, z in zip(a, b, c, strict=True)]
    got = run(lambda f, *values: f.fma(*values), a, b, c)
    for value, true in zip(got.tolist(), exact, strict=True):
        neighbours = (
            np.nextafter(np.float32(value), np.float32(side)) for side in (-np.inf, np.inf)
        )
        error = abs(Fraction(value) - true)
        assert all(error <= abs(Fraction(float(n)) - true) for n in neighbours if np.isfinite(n))


@given(some_floats)
def test_lanes_are_added_in_float64_from_the_first(a: Floats) -> None:
    def total(f: Function, values: Value) -> Value:
        low = f.sum_lanes(values)
        f.store(low, f["out"])
        return f.load(f["out"])

    want = 0.0
    for value in a:
        want += value
    assert run(total, a)[:2].view(np.float64)[0] == want


@given(st.integers(-5, 40))
def test_a_loop_runs_n_times(n: int) -> None:
    def count(f: Function) -> Value:
        total = Variable(f, f.constant(0.0, F64))
        with f.loop(f["n"]) as i:
            total.value = total.value + f.convert("sitofp", i, F64)
        return total.value

    assert run_scalar(count, n=n) == sum(range(max(0, n)))


@given(st.integers(0, 6), st.integers(0, 6))
def test_loops_nest_and_conditions_choose(n: int, m: int) -> None:
    def count(f: Function) -> Value:
        total = Variable(f, f.constant(0.0, F64))
        with f.loop(f["n"]) as i, f.loop(f["m"]) as j, f.when((i > j) & ~i.equals(3)):
            total.value = total.value + 1.0
        return total.value

    assert run_scalar(count, n=n, m=m) == sum(i > j and i != 3 for i in range(n) for j in range(m))


def test_constants_keep_their_precision() -> None:
    assert run_scalar(lambda f: f.constant(math.pi, F64)) == math.pi
    assert run(lambda f: f.constant(math.pi, VECTOR))[0] == np.float32(math.pi)


def test_kinds_do_not_mix() -> None:
    f = Function("probe", {"n": I64, "x": F32, "small": I32})
    for left, right in (("n", "x"), ("n", "small"), ("x", "n")):
        with pytest.raises(TypeError, match="is no"):
            f[left] + f[right]
