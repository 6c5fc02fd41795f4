"""How the adapters treat cv2: imported late, its process-wide settings put back."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from flowprep.errors import FlowprepError
from flowprep.flow import opencv
from flowprep.flow.base import get_engine
from flowprep.flow.opencv import OpenCVCpu


def fake_cuda(n_devices: int) -> SimpleNamespace:
    cuda = SimpleNamespace(OpticalFlowDual_TVL1=object, getCudaEnabledDeviceCount=lambda: n_devices)
    return SimpleNamespace(__version__="4.14.0", cuda=cuda)


def test_importing_the_adapters_does_not_import_cv2() -> None:
    check = "import flowprep.flow.opencv, sys; sys.exit('cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_the_thread_count_of_the_process_is_put_back() -> None:
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        engine = OpenCVCpu(threads=1)
        engine.compute(np.zeros((2, 32, 32), np.uint8))
        with pytest.raises(ValueError, match="uint8"):
            engine.compute(np.zeros((2, 32, 32), np.float32))
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_a_thread_count_must_be_positive() -> None:
    with pytest.raises(FlowprepError, match="threads = 0"):
        OpenCVCpu(threads=0)


def test_the_build_names_package_version_and_device() -> None:
    package, version, device = OpenCVCpu().build.split()
    assert package.startswith("opencv")
    assert (version, device) == (cv2.__version__, "cpu")


@pytest.mark.skipif(hasattr(cv2.cuda, "OpticalFlowDual_TVL1"), reason="this cv2 has CUDA TV-L1")
def test_without_a_cuda_build_the_engine_says_so_and_how_to_get_one() -> None:
    with pytest.raises(FlowprepError, match="without CUDA TV-L1") as missing:
        get_engine("opencv-cuda")
    assert "CUDA build of OpenCV" in missing.value.hint


@pytest.mark.parametrize(("n_devices", "what"), [(0, "no CUDA device"), (-1, "no CUDA driver")])
def test_without_a_device_the_engine_says_so(
    n_devices: int, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opencv, "_import_cv2", lambda: fake_cuda(n_devices))
    with pytest.raises(FlowprepError, match=what):
        get_engine("opencv-cuda")


def test_a_device_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opencv, "_import_cv2", lambda: fake_cuda(2))
    with pytest.raises(FlowprepError, match="device 2 does not exist") as wrong:
        get_engine("opencv-cuda", device=2)
    assert "0 to 1" in wrong.value.hint
