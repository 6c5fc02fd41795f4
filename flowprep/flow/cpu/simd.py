"""A small language for loops over float32 vectors of 16 lanes; it writes LLVM IR.

    f = Function("scale", {"data": PTR, "n_blocks": I64, "by": F32})
    with f.loop(f["n_blocks"]) as i:
        at = f["data"] + i * VECTOR_BYTES
        f.store(f.load(at) * f.splat(f["by"]), at)
    module([f])  # LLVM IR; `jit.Program([f])` compiles it

Why not leave it to a vectorising compiler: each operation here is one vector operation, whatever
the loop, and rounds as IEEE 754 says, so the bits are the same on every processor. A processor
with narrower vectors gets the same program in halves or quarters, cut by LLVM.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

LANES = 16
VECTOR_BYTES = 4 * LANES

PTR, I32, I64, F32, F64 = "ptr", "i32", "i64", "float", "double"
BIT = "i1"
VECTOR, INTEGERS, MASK = (f"<{LANES} x {scalar}>" for scalar in (F32, I32, BIT))
_SCALAR = {VECTOR: F32, INTEGERS: I32, MASK: BIT}
_INTRINSIC_SUFFIX = {VECTOR: f"v{LANES}f32", F32: "f32"}
_SCALAR_BYTES = 4
_NATURAL_BYTES = {VECTOR: VECTOR_BYTES, INTEGERS: VECTOR_BYTES, F32: 4, I32: 4, F64: 8, I64: 8}


class Value:
    """The result of an instruction. Arithmetic on it emits the next one.

    Numbers become constants of the other operand's kind; a pointer plus a number moves by bytes.
    """

    def __init__(self, function: Function, text: str, kind: str) -> None:
        self._function, self.text, self.kind = function, text, kind

    def __add__(self, other: Value | float) -> Value:
        if self.kind == PTR:
            n_bytes = self._function.constant(other, I64)
            return self._function.emit(f"getelementptr i8, ptr {self.text}, {n_bytes}", PTR)
        return self._arithmetic("add", self, other)

    def __sub__(self, other: Value | float) -> Value:
        return self._arithmetic("sub", self, other)

    def __rsub__(self, other: Value | float) -> Value:
        return self._arithmetic("sub", other, self)

    def __mul__(self, other: Value | float) -> Value:
        return self._arithmetic("mul", self, other)

    def __truediv__(self, other: Value | float) -> Value:
        return self._arithmetic("div", self, other)

    def __rtruediv__(self, other: Value | float) -> Value:
        return self._arithmetic("div", other, self)

    def __lt__(self, other: Value | float) -> Value:
        return self._compare("slt" if self.is_integer else "olt", other)

    def __gt__(self, other: Value | float) -> Value:
        return self._compare("sgt" if self.is_integer else "ogt", other)

    def equals(self, other: Value | float) -> Value:
        return self._compare("eq" if self.is_integer else "oeq", other)

    def __invert__(self) -> Value:
        ones = self._function.constant(1, self.kind)
        return self._function.emit(f"xor {self}, {ones.text}", self.kind)

    def __and__(self, other: Value) -> Value:
        return self._function.emit(f"and {self}, {other.text}", self.kind)

    @property
    def is_integer(self) -> bool:
        return self.kind in (I32, I64, INTEGERS)

    def _arithmetic(self, name: str, left: Value | float, right: Value | float) -> Value:
        a, b = (self._function.constant(v, self.kind) for v in (left, right))
        prefix = "" if self.is_integer else "f"
        return self._function.emit(f"{prefix}{name} {a}, {b.text}", self.kind)

    def _compare(self, condition: str, other: Value | float) -> Value:
        right = self._function.constant(other, self.kind)
        instruction = "icmp" if self.is_integer else "fcmp"
        kind = MASK if self.kind in _SCALAR else BIT
        return self._function.emit(f"{instruction} {condition} {self}, {right.text}", kind)

    def __str__(self) -> str:
        return f"{self.kind} {self.text}"


class Variable:
    """A value that changes from one round of a loop to the next."""

    def __init__(self, function: Function, start: Value) -> None:
        self._function, self._kind = function, start.kind
        self._at = function.reserve(start.kind)
        self.value = start

    @property
    def value(self) -> Value:
        return self._function.load(self._at, self._kind)

    @value.setter
    def value(self, value: Value) -> None:
        self._function.store(value, self._at)


class Function:
    """One function under construction; `f["name"]` is a parameter."""

    def __init__(self, name: str, parameters: Mapping[str, str], returns: str = "void") -> None:
        self.name, self.parameters, self.returns = name, dict(parameters), returns
        self.declarations: set[str] = set()
        self._reserved: list[str] = []
        self._lines: list[str] = []
        self._n_names = 0

    def __getitem__(self, parameter: str) -> Value:
        return Value(self, f"%{parameter}", self.parameters[parameter])

    # --- values ---

    def emit(self, instruction: str, kind: str) -> Value:
        name = f"%{self._new_name()}"
        self._line(f"{name} = {instruction}")
        return Value(self, name, kind)

    def constant(self, value: Value | float, kind: str) -> Value:
        """A number as a value of `kind`; a value stays. Raises TypeError for another kind."""
        if isinstance(value, Value):
            if value.kind != kind:
                raise TypeError(f"{value} is no {kind}")
            return value
        return Value(self, _literal(value, kind), kind)

    def splat(self, scalar: Value) -> Value:
        """The same number in each lane."""
        kind = {F32: VECTOR, I32: INTEGERS}[scalar.kind]
        first = self.emit(f"insertelement {kind} poison, {scalar}, i64 0", kind)
        return self.shuffle(first, first, [0] * LANES)

    def lane_numbers(self) -> Value:
        """0, 1, ..., 15."""
        return Value(self, _lanes(I32, range(LANES)), INTEGERS)

    def vector(self, numbers: Sequence[float]) -> Value:
        return Value(self, _lanes(F32, [_literal(n, F32) for n in numbers]), VECTOR)

    def convert(self, instruction: str, value: Value, kind: str) -> Value:
        """`instruction` is LLVM's: fptosi, sitofp, fpext, trunc, sext."""
        return self.emit(f"{instruction} {value} to {kind}", kind)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c, rounded once."""
        return self._intrinsic("fma", a, b, c)

    def sqrt(self, value: Value) -> Value:
        return self._intrinsic("sqrt", value)

    def floor(self, value: Value) -> Value:
        return self._intrinsic("floor", value)

    def select(self, mask: Value, if_true: Value, if_false: Value | float) -> Value:
        other = self.constant(if_false, if_true.kind)
        return self.emit(f"select {mask}, {if_true}, {other}", if_true.kind)

    def minimum(self, value: Value, limit: Value | float) -> Value:
        """`limit` where value is NaN."""
        return self.select(value < limit, value, limit)

    def maximum(self, value: Value, limit: Value | float) -> Value:
        """`limit` where value is NaN."""
        return self.select(value > limit, value, limit)

    def shuffle(self, a: Value, b: Value, lanes: Sequence[int]) -> Value:
        """Lanes 0..15 are those of `a`, 16..31 those of `b`."""
        chosen = f"<{LANES} x i32> {_lanes(I32, lanes)}"
        return self.emit(f"shufflevector {a}, {b}, {chosen}", a.kind)

    def sum_lanes(self, vector: Value) -> Value:
        """The sum of 16 lanes in float64, first lane first."""
        wide = self.convert("fpext", vector, f"<{LANES} x double>")
        total = self.constant(0.0, F64)
        for lane in range(LANES):
            total = total + self.emit(f"extractelement {wide}, i64 {lane}", F64)
        return total

    # --- memory ---

    def load(self, at: Value, kind: str = VECTOR, *, aligned: bool = True) -> Value:
        return self.emit(f"load {kind}, {at}, align {_alignment(kind, aligned)}", kind)

    def store(self, value: Value, at: Value, *, aligned: bool = True) -> None:
        self._line(f"store {value}, {at}, align {_alignment(value.kind, aligned)}")

    def reserve(self, kind: str) -> Value:
        """Room for a value on the stack, aligned as a vector."""
        name = f"%{self._new_name()}"
        self._reserved.append(f"{name} = alloca {kind}, align {VECTOR_BYTES}")
        return Value(self, name, PTR)

    # --- control ---

    @contextmanager
    def loop(self, n: Value | float) -> Iterator[Value]:
        """The body runs for i = 0, 1, ..., n - 1."""
        counter = Variable(self, self.constant(0, I64))
        with self.loop_while(lambda: counter.value < n):
            yield counter.value
            counter.value = counter.value + 1

    @contextmanager
    def loop_while(self, condition: Callable[[], Value]) -> Iterator[None]:
        head = self._new_name()
        self._line(f"br label %{head}")
        self._label(head)
        with self._branch(condition(), back_to=head):
            yield

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        with self._branch(condition):
            yield

    def give_back(self, value: Value | None = None) -> None:
        self._line("ret void" if value is None else f"ret {value}")

    # --- text ---

    def ir(self) -> str:
        """The definition. No pointer parameter overlaps another: a caller has to see to it."""
        parameters = ", ".join(
            f"{kind} noalias %{name}" if kind == PTR else f"{kind} %{name}"
            for name, kind in self.parameters.items()
        )
        body = "\n  ".join([*self._reserved, *self._lines])
        return f"define {self.returns} @{self.name}({parameters}) {{\n  {body}\n}}\n"

    @contextmanager
    def _branch(self, condition: Value, back_to: str | None = None) -> Iterator[None]:
        body, after = self._new_name(), self._new_name()
        self._line(f"br {condition}, label %{body}, label %{after}")
        self._label(body)
        yield
        self._line(f"br label %{back_to or after}")
        self._label(after)

    def _intrinsic(self, name: str, *values: Value) -> Value:
        kind = values[0].kind
        full_name = f"llvm.{name}.{_INTRINSIC_SUFFIX[kind]}"
        self.declarations.add(f"declare {kind} @{full_name}({', '.join([kind] * len(values))})")
        return self.emit(f"call {kind} @{full_name}({', '.join(map(str, values))})", kind)

    def _new_name(self) -> str:
        self._n_names += 1
        return f"_{self._n_names}"

    def _line(self, text: str) -> None:
        self._lines.append(text)

    def _label(self, name: str) -> None:
        self._lines.append(f"{name}:")


def module(functions: Sequence[Function]) -> str:
    """The LLVM IR of several functions."""
    declarations = sorted(set().union(*(f.declarations for f in functions)))
    return "\n".join([*declarations, *(f.ir() for f in functions)])


def _alignment(kind: str, aligned: bool) -> int:
    return _NATURAL_BYTES[kind] if aligned else _SCALAR_BYTES


def _lanes(scalar: str, numbers: Sequence[object]) -> str:
    return "<" + ", ".join(f"{scalar} {n}" for n in numbers) + ">"


def _literal(number: float, kind: str) -> str:
    if kind in _SCALAR:
        return _lanes(_SCALAR[kind], [_literal(number, _SCALAR[kind])] * LANES)
    if kind == F32:  # written as the bits of the float64 of the same value
        number = struct.unpack("f", struct.pack("f", number))[0]
    if kind in (F32, F64):
        return f"0x{struct.unpack('>Q', struct.pack('>d', number))[0]:016X}"
    return str(int(number))
