"""OpenCV's own TV-L1, on the CPU and on CUDA. cv2 is imported when an engine is made."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from itertools import pairwise
from threading import Lock
from typing import Any

import numpy as np

from flowprep.errors import FlowprepError
from flowprep.flow.base import TVL1Params
from flowprep.flow.pairwise import PairEngine, check_threads, tvl1_params
from flowprep.records import F32, U8

DISTRIBUTIONS = (
    "opencv-contrib-python-headless",
    "opencv-contrib-python",
    "opencv-python-headless",
    "opencv-python",
)
CPU_RULES = {
    "rules": "cpu",
    "median_filtering": 1,  # off: the CUDA code has none
    "outer_iterations": 1,  # the median filter is the only thing an outer iteration adds
    "gamma": 0.0,
    "use_initial_flow": False,
}
CUDA_RULES = {"rules": "cuda", "gamma": 0.0, "use_initial_flow": False}

POOL_STACK_BYTES = 32 << 20  # two float32 planes per call: holds frames of up to 4 Mpx
POOL_STACKS = 3  # the default stream takes one, ours another
_cuda_lock = Lock()


class OpenCVCpu(PairEngine):
    """cv2.optflow.DualTVL1OpticalFlow without median filtering, as many iterations as on CUDA."""

    name = "opencv-cpu"

    def __init__(self, *, device: int | None = None, threads: int = 1, **params: Any) -> None:
        self._tvl1 = tvl1_params(params)
        self._threads = check_threads(threads)
        self._cv2 = _import_cv2()
        if not hasattr(self._cv2, "optflow"):
            raise ImportError(
                f"cv2 {self._cv2.__version__} has no optflow module; it is in the contrib packages"
            )
        self.params = {**self._tvl1.as_dict(), **CPU_RULES}
        self.build = f"{_distribution()} {self._cv2.__version__} cpu"

    def compute(self, gray_THW: U8) -> F32:
        with _cv2_threads(self._cv2, self._threads):
            return super().compute(gray_THW)

    def _flows(self, gray_THW: U8) -> Iterator[np.ndarray]:
        solver = self._make_solver()
        for frame_0, frame_1 in pairwise(gray_THW):
            yield solver.calc(frame_0, frame_1, None).transpose(2, 0, 1)

    def _make_solver(self) -> Any:
        """A solver for one frame size: a small frame lowers the number of scales it keeps."""
        tvl1 = self._tvl1
        return self._cv2.optflow.DualTVL1OpticalFlow_create(
            tau=tvl1.tau,
            lambda_=tvl1.lambda_,
            theta=tvl1.theta,
            nscales=tvl1.n_scales,
            warps=tvl1.n_warps,
            epsilon=tvl1.epsilon,
            innnerIterations=tvl1.n_iterations,
            outerIterations=CPU_RULES["outer_iterations"],
            scaleStep=tvl1.scale_step,
            gamma=CPU_RULES["gamma"],
            medianFiltering=CPU_RULES["median_filtering"],
            useInitialFlow=CPU_RULES["use_initial_flow"],
        )


class OpenCVCuda(PairEngine):
    """cv2.cuda.OpticalFlowDual_TVL1 on a private stream.

    The engines of a process share one stream per device and take turns on it: OpenCV's buffer pool
    belongs to the process, and streams beyond its stacks fall back to cudaMalloc in silence.
    """

    name = "opencv-cuda"

    def __init__(self, *, device: int | None = None, threads: int = 1, **params: Any) -> None:
        self._tvl1 = tvl1_params(params)
        check_threads(threads)
        self._device = 0 if device is None else device
        self._cv2 = _import_cv2()
        _require_cuda_tvl1(self._cv2)
        _require_device(self._cv2, self._device)
        with _cuda_lock:
            self._stream = _open_stream(self._device)
        self._solver: Any = None
        self._solver_HW: tuple[int, int] | None = None
        self.params = {**self._tvl1.as_dict(), **CUDA_RULES}
        where = _cuda_build(self._cv2, self._device)
        self.build = f"{_distribution()} {self._cv2.__version__} {where}"

    def compute(self, gray_THW: U8) -> F32:
        with _cuda_lock:
            self._cv2.cuda.setDevice(self._device)
            return super().compute(gray_THW)

    def _flows(self, gray_THW: U8) -> Iterator[np.ndarray]:
        solver = self._solver_for((gray_THW.shape[1], gray_THW.shape[2]))
        gpu_0 = self._upload(gray_THW[0])
        for frame_1 in gray_THW[1:]:
            gpu_1 = self._upload(frame_1)
            gpu_flow = solver.calc(gpu_0, gpu_1, None, self._stream)
            self._stream.waitForCompletion()
            yield gpu_flow.download().transpose(2, 0, 1)
            gpu_0 = gpu_1

    def _upload(self, frame: U8) -> Any:
        gpu = self._cv2.cuda.GpuMat()
        gpu.upload(np.ascontiguousarray(frame), self._stream)
        self._stream.waitForCompletion()  # the host copy may go as soon as this returns
        return gpu

    def _solver_for(self, size_HW: tuple[int, int]) -> Any:
        """The solver of this frame size: a small frame lowers the number of scales it keeps."""
        if size_HW != self._solver_HW:
            self._solver, self._solver_HW = _make_cuda_solver(self._cv2, self._tvl1), size_HW
        return self._solver


def _make_cuda_solver(cv2: Any, tvl1: TVL1Params) -> Any:
    return cv2.cuda.OpticalFlowDual_TVL1.create(
        tau=tvl1.tau,
        lambda_=tvl1.lambda_,
        theta=tvl1.theta,
        nscales=tvl1.n_scales,
        warps=tvl1.n_warps,
        epsilon=tvl1.epsilon,
        iterations=tvl1.n_iterations,
        scaleStep=tvl1.scale_step,
        gamma=CUDA_RULES["gamma"],
        useInitialFlow=CUDA_RULES["use_initial_flow"],
    )


def _import_cv2() -> Any:
    import cv2

    return cv2


def _distribution() -> str:
    """The installed package that cv2 comes from, or "opencv" for a build without one."""
    for name in DISTRIBUTIONS:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        return name
    return "opencv"


@contextmanager
def _cv2_threads(cv2: Any, threads: int) -> Iterator[None]:
    """Hold cv2 to `threads`; the setting is the process's, so it is put back."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(threads)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _require_cuda_tvl1(cv2: Any) -> None:
    if not hasattr(getattr(cv2, "cuda", None), "OpticalFlowDual_TVL1"):
        raise ImportError(f"cv2 {cv2.__version__} is built without CUDA TV-L1 (cudaoptflow)")


def _require_device(cv2: Any, device: int) -> None:
    count = cv2.cuda.getCudaEnabledDeviceCount()
    if count <= 0:
        found = "no CUDA driver that fits it" if count < 0 else "no CUDA device"
        raise ImportError(f"cv2 {cv2.__version__} has CUDA TV-L1, but finds {found}")
    if not 0 <= device < count:
        raise FlowprepError(
            f"CUDA device {device} does not exist", f"choose one from 0 to {count - 1}"
        )


@cache
def _open_stream(device: int) -> Any:
    """The process's stream on a device; the buffer pool must be set up before any stream is."""
    cv2 = _import_cv2()
    cv2.cuda.setDevice(device)
    cv2.cuda.setBufferPoolUsage(True)
    cv2.cuda.setBufferPoolConfig(device, POOL_STACK_BYTES, POOL_STACKS)
    return cv2.cuda.Stream()


def _cuda_build(cv2: Any, device: int) -> str:
    toolkit = re.search(r"NVIDIA CUDA:\s+YES \(ver ([\d.]+)", cv2.getBuildInformation())
    info = cv2.cuda.DeviceInfo(device)
    version = toolkit.group(1) if toolkit else "unknown"
    return f"cuda {version} sm_{info.majorVersion()}{info.minorVersion()}"
