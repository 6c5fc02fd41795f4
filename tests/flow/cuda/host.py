"""A stand-in for a GPU: the CUDA kernels, built for the CPU with lanes.h, run by threads."""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from flowprep.flow.cuda.device import (
    BLOCKS_PER_SM,
    KERNELS,
    SIMPLE_BLOCKS_PER_SM,
    THREADS,
    defines,
)

HERE = Path(__file__).parent
KERNEL_SOURCE = HERE.parents[2] / "flowprep" / "flow" / "cuda" / "tvl1.cu"
FLAGS = (
    *("-std=c++17", "-O2", "-ftree-vectorize", "-ffp-contract=off", "-fno-math-errno"),
    *("-fno-trapping-math", "-Wall", "-Werror", "-Wno-psabi", "-shared", "-fPIC", "-pthread"),
)


def has_compiler() -> bool:
    return shutil.which("g++") is not None


def build(folder: Path, *flags: str, exact: bool = False) -> Path:
    """The shared library, in `folder`."""
    out = folder / f"tvl1-{exact:d}-{len(flags)}.so"
    if out.exists():
        return out
    source = folder / f"{out.stem}.cpp"
    source.write_text(f'{defines(exact)}#include "{HERE}/lanes.h"\n#include "{KERNEL_SOURCE}"\n')
    wide = ("-march=x86-64-v3",) if "fma" in Path("/proc/cpuinfo").read_text() else ()
    command = ["g++", *FLAGS, *wide, *flags, "-o", str(out), str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    return out


class HostDevice:
    """Keeps the contract of flowprep.flow.cuda.device.Device in this process's memory."""

    build = "host"

    def __init__(
        self, library: Path, n_threads: int = 1, n_workers: int = 96, total_bytes: int = 1 << 30
    ) -> None:
        self._library = ctypes.CDLL(str(library))
        self._n_threads = n_threads
        self.n_workers, self.total_bytes = n_workers, total_bytes
        self.largest_allocation = total_bytes
        self.allocated: list[int] = []
        self.host_bytes: list[int] = []
        self.launched: list[str] = []
        self._memory = np.empty(0, np.uint8)

    def allocate(self, n_bytes: int) -> int:
        if n_bytes > self.largest_allocation:
            raise MemoryError(f"{n_bytes} bytes")
        self.allocated.append(n_bytes)
        self._memory = np.full(n_bytes + 256, 0xA5, np.uint8)  # new memory holds anything
        return -(-self._memory.ctypes.data // 256) * 256

    def send(self, array: np.ndarray, address: int) -> None:
        array = np.ascontiguousarray(array)
        self._check(address, array.nbytes)
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def launch(self, kernel: str, job_address: int, *numbers: int) -> None:
        assert kernel in KERNELS
        self.launched.append(kernel)

        def work(number: int) -> None:
            self._library.be_worker(number, self._n_threads)
            arguments = (ctypes.c_void_p(job_address), *map(ctypes.c_int, numbers))
            getattr(self._library, kernel)(*arguments)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(self._n_threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def host_memory(self, n_bytes: int) -> np.ndarray:
        self.host_bytes.append(n_bytes)
        return np.empty(n_bytes, np.uint8)

    def fetch(self, address: int, into: np.ndarray) -> None:
        self._check(address, into.nbytes)
        ctypes.memmove(into.ctypes.data, address, into.nbytes)

    def wait(self) -> None:
        pass

    def _check(self, address: int, n_bytes: int) -> None:
        start = self._memory.ctypes.data
        assert start <= address
        assert address + n_bytes <= start + len(self._memory), "outside of what was allocated"


class FakeCupy:
    """The part of CuPy that is used, as its documentation has it, on this process's memory."""

    class Error(RuntimeError):
        status = 2

    class NVRTCError(RuntimeError):
        pass

    def __init__(self, *libraries: Path) -> None:
        """Fast kernels, then perhaps exact ones."""
        self.libraries = [ctypes.CDLL(str(library)) for library in libraries]
        self.programs: list[tuple[str, tuple[str, ...]]] = []
        self.n_synchronized = 0
        self.largest = 1 << 30
        runtime = SimpleNamespace(
            CUDARuntimeError=self.Error,
            getDeviceCount=lambda: 1,
            getDeviceProperties=lambda number: {"name": b"Fake"},
            memcpyHostToDevice=1,
            memcpyDeviceToHost=2,
            memcpyAsync=self.copy,
        )
        self.nvrtc = SimpleNamespace(
            NVRTCError=self.NVRTCError,
            getVersion=lambda: (13, 0),
            getSupportedArchs=lambda: (75, 90, 120),
            createProgram=lambda code, name, headers, includes: code,
            compileProgram=lambda code, options: self.programs.append((code, options)),
            getCUBIN=lambda code: str(int("#define EXACT 1" in code)).encode(),
            getPTX=lambda code: b"PTX",
            getProgramLog=lambda code: "error: expected a declaration",
            destroyProgram=lambda code: None,
        )
        self.cuda = SimpleNamespace(
            runtime=runtime,
            driver=SimpleNamespace(CUDADriverError=self.Error),
            nvrtc=self.nvrtc,
            function=SimpleNamespace(Module=lambda: Module(self.libraries)),
            Device=self.device,
            Stream=self.stream,
            Memory=self.memory,
            PinnedMemory=bytearray,
            PinnedMemoryPointer=lambda memory, offset: memoryview(memory)[offset:],
        )
        self.__version__ = "fake"

    def copy(self, to: int, source: int, n_bytes: int, kind: int, stream: int) -> None:
        assert (kind, stream) in {(1, 7), (2, 7)}
        ctypes.memmove(to, source, n_bytes)

    def device(self, number: int) -> Any:
        class Device(contextlib.nullcontext):  # type: ignore[type-arg]
            compute_capability = "120"
            attributes: ClassVar = {"MultiProcessorCount": 30}
            mem_info = (1 << 28, 1 << 29)

        return Device()

    def stream(self, non_blocking: bool) -> Any:
        def synchronize() -> None:
            self.n_synchronized += 1

        class Stream(contextlib.nullcontext):  # type: ignore[type-arg]
            ptr = 7

        out = Stream()
        out.synchronize = synchronize  # type: ignore[attr-defined]
        return out

    def memory(self, n_bytes: int) -> Any:
        if n_bytes > self.largest:
            raise self.Error("cudaErrorMemoryAllocation: out of memory")
        kept = np.empty(n_bytes + 256, np.uint8)
        return SimpleNamespace(ptr=-(-kept.ctypes.data // 256) * 256, kept=kept)


class Module:
    """Machine code on the device: here the number of a library."""

    def __init__(self, libraries: list[ctypes.CDLL]) -> None:
        self._libraries = libraries

    def load(self, code: bytes) -> None:
        self._library = self._libraries[int(code)]

    def get_function(self, name: str) -> Any:
        blocks = 30 * (BLOCKS_PER_SM if name == "solve" else SIMPLE_BLOCKS_PER_SM)

        def launch(grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...]) -> None:
            assert (grid, block) == ((blocks,), (THREADS,))
            address, *numbers = arguments
            self._library.be_worker(0, 1)
            kernel = getattr(self._library, name)
            kernel(ctypes.c_void_p(int(address)), *(ctypes.c_int(int(n)) for n in numbers))

        return launch
