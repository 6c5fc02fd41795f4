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

PASSES_LEVEL, CODEGEN_LEVEL = 2, 3  # of LLVM's optimiser
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
        is_arm = _binding().get_default_triple().startswith(("aarch64", "arm64"))
        return is_arm or "+fma" in self.features.split(",")


class Program:
    """Compiled functions by name; calling one releases Python's lock."""

    def __init__(self, functions: list[Function], target: Target | None = None) -> None:
        self.target = target or Target.host()
        self._engine = _load(_machine_code(module(functions), self.target))
        for function in functions:
            setattr(self, function.name, self._callable(function))

    def _callable(self, function: Function) -> Any:
        returns = _C_TYPES.get(function.returns)
        prototype = ctypes.CFUNCTYPE(returns, *(_C_TYPES[k] for k in function.parameters.values()))
        call: Any = prototype(self._engine.get_function_address(function.name))
        call.keeps = self._engine  # the machine code, also when the Program has gone
        return call


def compiler() -> str:
    """Name and version of what compiles."""
    import llvmlite

    llvm = ".".join(map(str, _binding().llvm_version_info))
    return f"LLVM {llvm} (llvmlite {llvmlite.__version__})"


def cache_folder() -> Path:
    """Where machine code is kept: $FLOWPREP_CACHE, else flowprep under the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = os.environ.get("FLOWPREP_CACHE") or os.path.join(base, "flowprep")
    return Path(os.path.expanduser(folder))


def _machine_code(ir: str, target: Target) -> bytes:
    path, code = cache_folder() / f"cpu-{_key(ir, target)}.o", None
    try:
        _open_folder(path.parent)
        code = _read(path)
        if code is None:
            code = _compile(ir, target)
            _keep(code, path)
    except OSError as error:
        log.warning(
            "the compiled cpu engine cannot be kept, so each start compiles again: %s; "
            "set FLOWPREP_CACHE to a folder that is writable, and yours alone (mode 700)",
            error,
        )
    return code or _compile(ir, target)


def _key(ir: str, target: Target) -> str:
    triple = _binding().get_default_triple()
    parts = (ir, target.cpu, target.features, triple, compiler(), f"{PASSES_LEVEL} {CODEGEN_LEVEL}")
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _open_folder(folder: Path) -> None:
    """Make it. Raises OSError unless it has a fixed place and nobody else can write to it."""
    if not folder.is_absolute():
        raise OSError(f"{folder} is no absolute path")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _require_ours(folder)


def _require_ours(path: Path) -> None:
    status = path.stat()
    if os.name != "nt" and (status.st_uid != os.geteuid() or status.st_mode & 0o022):
        raise OSError(f"others may write to {path}")


def _read(path: Path) -> bytes | None:
    """What was kept, if it is there and whole. Raises OSError where others may have written it."""
    if not path.exists():
        return None
    _require_ours(path)
    content = path.read_bytes()
    digest, code = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    return code if hashlib.sha256(code).digest() == digest else None


def _keep(code: bytes, path: Path) -> None:
    """Write it in one step, so that no process sees half a file."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        part = Path(file.name)
        try:
            file.write(hashlib.sha256(code).digest() + code)
            file.close()
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise


def _compile(ir: str, target: Target) -> bytes:
    log.warning("compiling the cpu engine for %s", target.cpu)
    binding = _binding()
    machine = _machine(target)
    parsed = binding.parse_assembly(ir)
    parsed.verify()
    options = binding.create_pipeline_tuning_options(speed_level=PASSES_LEVEL)
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
    return triple.create_target_machine(cpu=target.cpu, features=target.features, opt=CODEGEN_LEVEL)


def _binding() -> Any:
    import llvmlite.binding

    llvmlite.binding.initialize_native_target()
    llvmlite.binding.initialize_native_asmprinter()
    return llvmlite.binding
