"""Engine `cuda` on a CUDA device: the contract, its bits, and agreement with other engines."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import subprocess
import sys
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from flowprep.flow.base import TVL1Params, engine_status, get_engine
from flowprep.flow.cuda.engine import Cuda
from flowprep.flow.cuda.layout import Geometry
from flowprep.flow.reference import Reference
from flowprep.records import U8
from flowprep.synth import Motion, render, write_video

pytestmark = pytest.mark.gpu

TESTS = Path(__file__).parents[1]
PAIRS = {  # motion, height, width, seed
    "shift": (Motion(dx_px=1.3, dy_px=-0.7), 96, 128, 1),
    "drift": (Motion(dx_px=-0.4, dy_px=0.25), 97, 131, 2),
    "turn": (Motion(rotate_deg=2.0), 96, 200, 3),
    "zoom": (Motion(zoom=1.02, dx_px=0.5), 120, 90, 4),
    "shear": (Motion(shear=0.03, dy_px=0.6), 256, 340, 5),
}


@pytest.fixture(scope="module", autouse=True)
def _live() -> None:
    status = engine_status("cuda")
    if status.available:
        return
    if os.environ.get("FLOWPREP_FAIL_WITHOUT_CUDA") == "1":
        pytest.fail(f"cuda is not live: {status.detail}")
    pytest.skip(f"cuda is not live here: {status.detail}")


def load(name: str, path: Path) -> ModuleType:
    """With --import-mode=importlib tests cannot import each other."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@cache
def rendered_pair(name: str) -> U8:
    motion, height, width, seed = PAIRS[name]
    rgb = render(motion, 2, height, width, seed)
    return np.rint(rgb @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)


@cache
def reference_solution(name: str) -> Any:
    return Reference().solve(*rendered_pair(name))


def noise_clip(seed: int, n_frames: int, height: int = 70, width: int = 117) -> U8:
    return np.random.default_rng(seed).integers(0, 256, (n_frames, height, width), np.uint8)


@pytest.mark.parametrize("numerics", ["fast", "exact"])
def test_the_engine_keeps_the_contract(numerics: str) -> None:
    contract = load("flow_contract", TESTS / "flow" / "contract.py")
    contract.check_engine(partial(get_engine, "cuda", numerics=numerics))


@pytest.mark.parametrize("numerics", ["fast", "exact"])
@pytest.mark.parametrize("name", PAIRS)
def test_flow_and_iterations_are_the_references(name: str, numerics: str) -> None:
    gray = rendered_pair(name)
    want = reference_solution(name)
    ((_, solved),) = Cuda(numerics=numerics).solve([gray])
    epe = np.hypot(*(solved.out[0] - want.flow_2HW))
    assert epe.mean() < 1e-2
    assert np.median(epe) < 1e-3
    assert (solved.counts_PLW[0] == want.counts_LW).mean() >= 0.8


def gray_texture(height: int, width: int, seed: int) -> U8:
    rgb = render(Motion(), 1, height, width, seed)[0]
    return np.rint(rgb @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)


def moving_block() -> U8:
    """Far from it the flow fades to numbers too small to be normal, then to zero."""
    frames = np.stack([gray_texture(240, 200, 7)] * 2)
    frames[0, 40:60, 60:80] = frames[1, 41:61, 60:80] = gray_texture(20, 20, 8)
    return frames


@pytest.mark.parametrize("name", [*PAIRS, "block"])
def test_exact_numerics_have_the_bits_of_the_same_kernels_on_a_cpu(
    name: str, tmp_path: Path
) -> None:
    host = load("cuda_host", TESTS / "flow" / "cuda" / "host.py")
    if not host.has_compiler():
        pytest.skip("there is no g++ to build the CUDA kernels for the CPU with")
    library = host.build(tmp_path, exact=True)
    on_cpu = Cuda(numerics="exact", open_device=lambda *_: host.HostDevice(library, n_threads=4))
    gray = moving_block() if name == "block" else rendered_pair(name)
    np.testing.assert_array_equal(Cuda(numerics="exact").compute(gray), on_cpu.compute(gray))


@pytest.mark.parametrize("numerics", ["fast", "exact"])
def test_a_pairs_bits_depend_on_nothing_but_the_pair(numerics: str) -> None:
    clips = [noise_clip(seed, n) for seed, n in enumerate((5, 2, 3, 1, 90, 400))]
    engine = Cuda(numerics=numerics)
    alone = [engine.compute(clip) for clip in clips]
    geometry = Geometry.of((70, 117), TVL1Params())
    little = Cuda(numerics=numerics, gpu_bytes=2 * geometry.bytes_for(9, 7))
    assert little.batch_pairs((70, 117)) == 14
    for other in (engine, Cuda(numerics=numerics), little):
        for order in ([0, 1, 2, 3, 4, 5], [5, 4, 2, 0, 1, 3]):
            flows = other.compute_batch([clips[i] for i in order])
            for i, flow in zip(order, flows, strict=True):
                np.testing.assert_array_equal(flow, alone[i])


def test_memory_that_others_hold_halves_the_batch(caplog: pytest.LogCaptureFixture) -> None:
    import cupy

    engine = Cuda()
    want = engine.compute(noise_clip(0, 40))
    engine = Cuda()
    free, _ = cupy.cuda.Device(0).mem_info
    held = cupy.cuda.Memory(max(1, free - (256 << 20)))
    with caplog.at_level(logging.WARNING):
        assert engine.batch_pairs((256, 340)) >= 1
        np.testing.assert_array_equal(engine.compute(noise_clip(0, 40)), want)
    assert "batches of" in caplog.text
    del held


@pytest.mark.parametrize("size_HW", [(1080, 1920), (2160, 4096)])
def test_large_frames_move_as_they_should(size_HW: tuple[int, int]) -> None:
    texture = np.kron(
        noise_clip(1, 1, size_HW[0] // 8 + 2, size_HW[1] // 8 + 2)[0], np.ones((8, 8))
    )
    smooth = sum(np.roll(texture, (i, j), (0, 1)) for i in range(8) for j in range(8)) / 64
    height, width = size_HW
    gray = np.stack([smooth[1 : height + 1, 2 : width + 2], smooth[:height, :width]])
    flow = Cuda().compute(np.rint(gray).astype(np.uint8))[0]
    inside = flow[:, 20:-20, 20:-20]
    assert np.abs(np.median(inside, axis=(1, 2)) - [2, 1]).max() < 0.1


def shards_of(videos: Path, out: Path, **env: str) -> tuple[dict[str, str], str]:
    """The bytes of a dataset's tars, hashed, and what the run said."""
    command = [sys.executable, "-m", "flowprep", "extract", "--src", str(videos)]
    command += ["--out", str(out), "--engine", "cuda", "--executor", "local"]
    command += ["--workers-per-gpu", "2", "--size", "native"]
    done = subprocess.run(
        command, env=os.environ | env, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tars = sorted(out.glob("*.tar"))
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in tars}, done.stderr


def test_a_spoilt_context_costs_a_worker_and_no_sample(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for number, motion in enumerate((Motion(dx_px=1), Motion(dy_px=-2), Motion(zoom=1.02))):
        path = tmp_path / "videos" / f"{number}.mp4"
        write_video(path, render(motion, 20, 96, 128, number), fps=25)
    want, _ = shards_of(tmp_path / "videos", tmp_path / "whole")
    flag = tmp_path / "lost"
    paths = os.pathsep.join([str(Path(__file__).parent / "lost_device"), *sys.path])
    found, said = shards_of(
        tmp_path / "videos", tmp_path / "lost-device", LOSE_FLAG=str(flag), PYTHONPATH=paths
    )
    assert flag.exists()
    assert "died" in said
    assert len(want) >= 3
    assert found == want


# --- against opencv-cuda, where it is live ---


def require_opencv_cuda() -> None:
    status = engine_status("opencv-cuda")
    if not status.available:
        pytest.skip(f"opencv-cuda is not live here: {status.detail}")


@pytest.mark.parametrize("numerics", ["fast", "exact"])
def test_the_flow_is_opencvs(numerics: str) -> None:
    """Per pair, then the median over pairs: two builds of one algorithm differ in single pixels."""
    require_opencv_cuda()
    stats = []
    for name in PAIRS:
        gray = rendered_pair(name)
        both = [get_engine(e).compute(gray)[0] for e in ("opencv-cuda", "cuda")]
        epe = np.hypot(*(both[0] - both[1]))
        stats.append((epe.mean(), np.median(epe)))
    mean, middle = np.median(stats, axis=0)
    assert mean < 0.03
    assert middle < 0.01


@pytest.mark.parametrize("name", PAIRS)
def test_ten_iterations_meet_opencvs_own_bar(name: str) -> None:
    require_opencv_cuda()
    gray = rendered_pair(name)
    a, b = (
        get_engine(e, n_iterations=10).compute(gray)[0].astype(np.float64).ravel()
        for e in ("opencv-cuda", "cuda")
    )
    assert abs(1 - a @ b / np.sqrt((a @ a) * (b @ b))) < 4e-3
