"""The CUDA kernels built for the CPU, once per session and kind."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from flowprep.flow.cuda import device
from flowprep.flow.cuda.engine import Cuda

MakeCuda = Callable[..., Cuda]


def load_host() -> ModuleType:
    """host.py beside this file: with --import-mode=importlib a test cannot import its neighbour."""
    path = Path(__file__).with_name("host.py")
    spec = importlib.util.spec_from_file_location("cuda_host", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def host() -> ModuleType:
    module = load_host()
    if not module.has_compiler():
        pytest.skip("there is no g++ to build the CUDA kernels for the CPU with")
    return module


@pytest.fixture(scope="session")
def library(host: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """library(*flags, exact=False) -> the shared object."""
    folder = tmp_path_factory.mktemp("kernels")
    return lambda *flags, **options: host.build(folder, *flags, **options)


@pytest.fixture(scope="session")
def make_cuda(host: ModuleType, library: Callable[..., Path]) -> MakeCuda:
    """make_cuda(on={"n_threads": 1, ...}, **engine_options) -> engine on stand-in devices.

    The stand-ins, one for each lane, are the engine's attribute `devices`.
    """

    def make(*, on: dict[str, Any] | None = None, **options: Any) -> Cuda:
        devices = []

        def open_device(_: int, exact: bool) -> Any:
            built = library(exact=exact)
            devices.append(host.HostDevice(built, **(on or {})))
            return devices[-1]

        engine = Cuda(open_device=open_device, **options)
        engine.devices = devices  # type: ignore[attr-defined]
        return engine

    return make


@pytest.fixture
def fake_cupy(
    host: ModuleType, library: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """Engine `cuda` finds this CuPy, whose kernels run on the CPU."""
    cupy = host.FakeCupy(library())
    monkeypatch.setattr(device, "_import_cupy", lambda: cupy)
    device._compiled.cache_clear()
    yield cupy
    device._compiled.cache_clear()
