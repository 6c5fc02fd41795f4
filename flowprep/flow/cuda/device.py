"""A CUDA device through CuPy: memory, copies, launches, on one stream of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import Any, Protocol

import numpy as np

from flowprep.errors import DeviceLost, FlowprepError
from flowprep.flow.cuda import layout
from flowprep.records import U8

log = logging.getLogger(__name__)

THREADS = 128
BLOCKS_PER_SM = 2  # so that a thread of `solve` has 255 registers
SIMPLE_BLOCKS_PER_SM = 16  # of the other kernels, which need few registers
LEAST_CAPABILITY = (7, 5)
OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation, CUDA_ERROR_OUT_OF_MEMORY
KERNELS = ("make_level", "make_taps", "begin", "solve", "deliver")


class Device(Protocol):
    """What the engine needs of a GPU. Copies and launches run in the order of the calls."""

    build: str
    n_workers: int  # warps at work at a time
    total_bytes: int

    def allocate(self, n_bytes: int) -> int:
        """The address of new memory; what was allocated before is freed. Raises MemoryError."""
        ...

    def send(self, array: np.ndarray, address: int) -> None: ...

    def launch(self, kernel: str, job_address: int, *numbers: int) -> None: ...

    def host_memory(self, n_bytes: int) -> U8:
        """Memory of the host that the device copies to fastest."""
        ...

    def fetch(self, address: int, into: U8) -> None:
        """The bytes are there once `wait` has returned."""
        ...

    def wait(self) -> None:
        """For all that was asked. Raises DeviceLost when the device failed."""
        ...


def defines(exact: bool) -> str:
    """What the kernels share with Python."""
    values = {
        "THREADS": THREADS,
        "BLOCKS_PER_SM": BLOCKS_PER_SM,
        "MAX_STEPS": layout.MAX_STEPS,
        "COLUMNS": layout.COLUMNS,
        "BAND_ROWS": layout.BAND_ROWS,
        "LEVEL_BYTES": layout.LEVEL.itemsize,
        "JOB_BYTES": layout.JOB.itemsize,
        "CONTROL_BYTES": layout.CONTROL.itemsize,
        "EXACT": int(exact),
    }
    return "".join(f"#define {name} {value}\n" for name, value in values.items())


def source(exact: bool) -> str:
    """The kernels, as NVRTC takes them."""
    here = files(__package__)
    parts = ((here / name).read_text("utf-8") for name in ("lanes.cuh", "tvl1.cu"))
    return "".join([defines(exact), *parts])


def options(exact: bool) -> tuple[str, ...]:
    """For NVRTC. Nothing is contracted; `exact` keeps numbers that are too small to be normal."""
    return ("--std=c++17", "--fmad=false", f"--ftz={'false' if exact else 'true'}")


class CupyDevice:
    """One CUDA device. Raises ImportError where CuPy or a device is missing."""

    def __init__(self, number: int, exact: bool) -> None:
        self._cupy = cupy = _import_cupy()
        _require_device(cupy, number)
        with _cuda_errors(cupy):
            self._device = cupy.cuda.Device(number)
            with self._device:
                self._stream = cupy.cuda.Stream(non_blocking=True)
                self._kernels = _compiled(number, exact)
                self.total_bytes = int(self._device.mem_info[1])
        self._n_multiprocessors = int(self._device.attributes["MultiProcessorCount"])
        self.n_workers = self._n_multiprocessors * BLOCKS_PER_SM * THREADS // 32
        self._memory: Any = None
        self.build = _build(cupy, number)

    def allocate(self, n_bytes: int) -> int:
        self._memory = None
        with self._device, _cuda_errors(self._cupy):
            self._memory = self._cupy.cuda.Memory(n_bytes)
        return int(self._memory.ptr)

    def send(self, array: np.ndarray, address: int) -> None:
        array = np.ascontiguousarray(array)
        with self._device, _cuda_errors(self._cupy):
            runtime = self._cupy.cuda.runtime
            kind = runtime.memcpyHostToDevice
            # pageable memory: staged when the call returns, so the array may go
            runtime.memcpyAsync(address, array.ctypes.data, array.nbytes, kind, self._stream.ptr)

    def launch(self, kernel: str, job_address: int, *numbers: int) -> None:
        arguments = (np.uint64(job_address), *(np.int32(n) for n in numbers))
        per_multiprocessor = BLOCKS_PER_SM if kernel == "solve" else SIMPLE_BLOCKS_PER_SM
        grid = (self._n_multiprocessors * per_multiprocessor,)
        with self._device, self._stream, _cuda_errors(self._cupy):
            self._kernels[kernel](grid, (THREADS,), arguments)

    def host_memory(self, n_bytes: int) -> U8:
        cuda = self._cupy.cuda
        with self._device, _cuda_errors(self._cupy):
            locked = cuda.PinnedMemoryPointer(cuda.PinnedMemory(n_bytes), 0)
        return np.frombuffer(locked, np.uint8, n_bytes)

    def fetch(self, address: int, into: U8) -> None:
        with self._device, _cuda_errors(self._cupy):
            runtime = self._cupy.cuda.runtime
            kind = runtime.memcpyDeviceToHost
            runtime.memcpyAsync(into.ctypes.data, address, into.nbytes, kind, self._stream.ptr)

    def wait(self) -> None:
        with _cuda_errors(self._cupy):
            self._stream.synchronize()


def _import_cupy() -> Any:
    try:
        import cupy
    except OSError as error:
        raise ImportError(
            f"cupy cannot make its cache folder ({error}); set CUPY_CACHE_DIR to one that it may"
        ) from error
    return cupy


def _require_device(cupy: Any, number: int) -> None:
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        raise ImportError(f"cupy {cupy.__version__} finds no CUDA device: {error}") from error
    if not 0 <= number < count:
        raise FlowprepError(
            f"CUDA device {number} does not exist", f"choose one from 0 to {count - 1}"
        )
    capability = _capability(cupy, number)
    if capability < LEAST_CAPABILITY:
        raise FlowprepError(
            f"CUDA device {number} has compute capability {capability[0]}.{capability[1]}",
            "engine cuda needs 7.5 or newer (Turing, 2018); --engine cpu does without",
        )


def _capability(cupy: Any, number: int) -> tuple[int, int]:
    text = cupy.cuda.Device(number).compute_capability
    return int(text[:-1]), int(text[-1])


@cache
def _compiled(number: int, exact: bool) -> dict[str, Any]:
    """The kernels on one device, by name.

    Not by cupy.RawModule, which flushes subnormal numbers whatever it is told.
    """
    log.info("compiling the kernels of engine cuda for device %d", number)
    cupy = _import_cupy()
    module = cupy.cuda.function.Module()
    module.load(_machine_code(cupy, _capability(cupy, number), exact))
    return {name: module.get_function(name) for name in KERNELS}


def _machine_code(cupy: Any, capability: tuple[int, int], exact: bool) -> bytes:
    """For this kind of GPU; for one that NVRTC does not know, code that the driver compiles."""
    nvrtc = cupy.cuda.nvrtc
    try:
        known = sorted(nvrtc.getSupportedArchs())
    except Exception as error:  # what CuPy raises for a library that is not there varies
        raise ImportError(f"cupy {cupy.__version__} finds no NVRTC: {error}") from error
    wanted = 10 * capability[0] + capability[1]
    newest = max(number for number in known if number <= wanted)
    arch = f"{'sm' if newest == wanted else 'compute'}_{newest}"
    program = nvrtc.createProgram(source(exact), "tvl1.cu", (), ())
    try:
        nvrtc.compileProgram(program, (*options(exact), f"--gpu-architecture={arch}"))
        code = nvrtc.getCUBIN(program) if newest == wanted else nvrtc.getPTX(program)
    except nvrtc.NVRTCError as error:
        told = nvrtc.getProgramLog(program)
        raise FlowprepError(
            f"NVRTC cannot compile the kernels of engine cuda for {arch}: {error}: {told}",
            "report it; --engine cpu does without",
        ) from error
    finally:
        nvrtc.destroyProgram(program)
    return bytes(code)


def _build(cupy: Any, number: int) -> str:
    name = cupy.cuda.runtime.getDeviceProperties(number)["name"].decode()
    major, minor = _capability(cupy, number)
    nvrtc = ".".join(map(str, cupy.cuda.nvrtc.getVersion()))
    return f"cupy {cupy.__version__} nvrtc {nvrtc} sm_{major}{minor} {name}"


@contextmanager
def _cuda_errors(cupy: Any) -> Iterator[None]:
    """CuPy's errors as ours: MemoryError, or DeviceLost for what spoils the process's context."""
    try:
        yield
    except (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError) as error:
        if error.status == OUT_OF_MEMORY:
            raise MemoryError(str(error)) from error
        raise DeviceLost(f"the CUDA device failed: {error}") from error
