"""NVRTC compiles the kernels for every kind of GPU that the engine takes, no GPU needed."""

from __future__ import annotations

import ctypes
import site
from pathlib import Path
from typing import Any

import pytest

from flowprep.flow.cuda.device import KERNELS, options, source

CAPABILITIES = (75, 90, 120)
MORE_CAPABILITIES = (80, 86, 89, 100)


@pytest.fixture(scope="module")
def nvrtc() -> Any:
    folders = [Path(folder) / "nvidia" for folder in site.getsitepackages()]
    found = [path for folder in folders for path in folder.glob("**/libnvrtc.so.1[23]")]
    assert found, "nvidia-cuda-nvrtc is not installed; it is in the extra 'dev'"
    for builtins in found[0].parent.glob("libnvrtc-builtins.so.*"):
        ctypes.CDLL(str(builtins))  # loaded, it is found by its name
    return ctypes.CDLL(str(found[0]))


def compile_for(nvrtc: Any, capability: int, exact: bool) -> bytes:
    """The machine code (an ELF file); raises AssertionError with the compiler's words."""
    program = ctypes.c_void_p()
    code = source(exact).encode()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), code, b"tvl1.cu", 0, None, None) == 0
    given = [*options(exact), f"--gpu-architecture=sm_{capability}"]
    argv = (ctypes.c_char_p * len(given))(*(option.encode() for option in given))
    status = nvrtc.nvrtcCompileProgram(program, len(given), argv)
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    assert status == 0, log.value.decode()
    assert b"warning" not in log.value, log.value.decode()
    assert nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)) == 0
    cubin = ctypes.create_string_buffer(size.value)
    assert nvrtc.nvrtcGetCUBIN(program, cubin) == 0
    return cubin.raw


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(
    "capability",
    [*CAPABILITIES, *(pytest.param(c, marks=pytest.mark.slow) for c in MORE_CAPABILITIES)],
)
def test_the_kernels_compile_for(nvrtc: Any, capability: int, exact: bool) -> None:
    cubin = compile_for(nvrtc, capability, exact)
    assert cubin.startswith(b"\x7fELF")
    for kernel in KERNELS:
        assert b".text." + kernel.encode() + b"\0" in cubin
