"""Compile LLVM IR for the processor at hand, keeping the machine code for the next start.

The kept file is named by a hash of everything that decides its content, so one folder serves
machines of several kinds (a HOME on a network) and several versions side by side.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowprep.flow.cpu.simd import F32, F64, I64, PTR, Function, module

log = logging.getLogger(__name__)

DIGEST_BYTES = hashlib.sha256().digest_size
_C_TYPES = {PTR: ctypes.c_void_p, I64: ctypes.c_int64, F32: ctypes.c_float, F64: ctypes.c_double}


@dataclass(frozen=True)
class Target:
    """A processor, in LLVM's words."""

    cpu: str
    features: str

    @classmethod
    def host(cls) -> Target:
        binding = _binding()
        return cls(binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten())

    @property
    def has_fma(self) -> bool:
        """Whether a * b + c is one instruction; every 64-bit ARM has it."""
        is_x86 = _binding().get_default_triple().startswith(("x86_64", "i686"))
        return not is_x86 or "+fma" in self.features.split(",")


class Program:
    """Compiled functions by name; calling one releases Python's lock."""

    def __init__(self, functions: list[Function], target: Target | None = None) -> None:
        self.target = target or Target.host()
        self._engine = _load(_machine_code(module(functions), self.target))
        self._calls = {f.name: self._callable(f) for f in functions}

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_calls"][name]
        except KeyError:
            raise AttributeError(name) from None

    def _callable(self, function: Function) -> Any:
        returns = _C_TYPES.get(function.returns)
        prototype = ctypes.CFUNCTYPE(returns, *(_C_TYPES[k] for k in function.parameters.values()))
        call: Any = prototype(self._engine.get_function_address(function.name))
        call.keeps = self._engine  # the machine code, also when the Program has gone
        return call


def compiler() -> str:
    """Name and version of what compiles."""
    binding = _binding()
    llvm = ".".join(map(str, binding.llvm_version_info))
    return f"LLVM {llvm} (llvmlite {_llvmlite_version()})"


def cache_folder() -> Path:
    """Where machine code is kept: $FLOWPREP_CACHE, else flowprep under the user's cache folder."""
    given = os.environ.get("FLOWPREP_CACHE")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "flowprep"


def _machine_code(ir: str, target: Target) -> bytes:
    path = cache_folder() / f"cpu-{_key(ir, target)}.o"
    code = _read(path)
    if code is None:
        log.warning("compiling the cpu engine for %s, about a second", target.cpu)
        code = _compile(ir, target)
        _keep(code, path)
    return code


def _key(ir: str, target: Target) -> str:
    triple = _binding().get_default_triple()
    parts = (ir, target.cpu, target.features, triple, _llvmlite_version())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _read(path: Path) -> bytes | None:
    """What was kept, if it is whole and no other user could have written it."""
    try:
        if not _is_ours(os.stat(path.parent)) or not _is_ours(os.stat(path)):
            return None
        content = path.read_bytes()
    except OSError:
        return None
    digest, code = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    return code if hashlib.sha256(code).digest() == digest else None


def _is_ours(status: os.stat_result) -> bool:
    if os.name == "nt":
        return True
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _keep(code: bytes, path: Path) -> None:
    """Write it in one step, so that no process sees half a file. A read-only place is told."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(hashlib.sha256(code).digest() + code)
        os.replace(file.name, path)
    except OSError as error:
        log.warning(
            "cannot keep the compiled cpu engine, so each start compiles again (%s); "
            "set FLOWPREP_CACHE to a folder that is yours and writable",
            error,
        )


def _compile(ir: str, target: Target) -> bytes:
    binding = _binding()
    machine = _machine(target)
    parsed = binding.parse_assembly(ir)
    parsed.verify()
    options = binding.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
    passes = binding.create_pass_builder(machine, options)
    passes.getModulePassManager().run(parsed, passes)
    return machine.emit_object(parsed)


def _load(code: bytes) -> Any:
    """An execution engine that owns the machine code."""
    binding = _binding()
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), _machine(Target.host()))
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine


def _machine(target: Target) -> Any:
    triple = _binding().Target.from_default_triple()
    return triple.create_target_machine(cpu=target.cpu, features=target.features, opt=3)


def _llvmlite_version() -> str:
    import llvmlite

    return str(llvmlite.__version__)


def _binding() -> Any:
    import llvmlite.binding

    llvmlite.binding.initialize_native_target()
    llvmlite.binding.initialize_native_asmprinter()
    return llvmlite.binding
