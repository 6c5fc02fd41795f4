"""What a prediction costs: multiplications, seconds, and the seconds of TV-L1 before it."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch

from flowprep.flow.base import get_engine, resolve_auto
from flowprep.records import U8
from train.common import Place
from train.data.reader import Reader, ShardReader, Span
from train.data.synthetic import SyntheticReader
from train.data.table import Table
from train.judged import Cost, Costs, Judged, Run
from train.models.count import macs, parameters

WARM_UP, REPEATS = 1, 5


def costs_of(judged: list[Judged], table: Table, engine: str, here: Place) -> Costs:
    """The cost of one window for each of `judged`. Raises FlowprepError if the engine cannot run.

    TV-L1 is that of the first frames of the first sample, as many as a window has, at their
    stored size, on one thread of the CPU or the GPU that the engine takes.
    """
    runs = {run.name: run for one in judged for run in one.runs}
    seconds = {name: _network_s(run, here) for name, run in runs.items()}
    name, tvl1_s, size = "", 0.0, ""
    if any(one.sees_flow for one in judged):
        name = resolve_auto()[0] if engine == "auto" else engine
        gray_THW = _gray(table, max(run.meta.window.frames for run in runs.values()))
        tvl1_s = median_s(lambda: get_engine(name).compute(gray_THW))
        size = f"; TV-L1 by {name} on one thread, {len(gray_THW) - 1} flows of " + "x".join(
            str(n) for n in reversed(gray_THW.shape[1:])
        )
    how = f"one window, median of {REPEATS}, on {_device_name(here)}{size}"
    return Costs({one.name: _sum(one, seconds, tvl1_s) for one in judged}, how)


def _sum(one: Judged, seconds: dict[str, float], tvl1_s: float) -> Cost:
    networks_s = sum(seconds[run.name] for run in one.runs)
    return Cost(
        parameters=sum(parameters(run.net)["total"].total for run in one.runs),
        macs=sum(macs(run.net, _shape(run))["total"] for run in one.runs),
        networks_s=networks_s,
        with_tvl1_s=networks_s + (tvl1_s if one.sees_flow else 0),
    )


def _shape(run: Run) -> tuple[int, int, int, int]:
    window = run.meta.window
    return run.meta.model.in_channels, window.frames, window.crop, window.crop


def _network_s(run: Run, here: Place) -> float:
    """Seconds of one window through the network, the input already on the device."""
    clip = torch.zeros(1, *_shape(run), device=here.device)
    net = run.net.to(here.device).eval()

    def forward() -> None:
        with torch.no_grad(), here.autocast():
            net(clip)
        if here.device.type == "cuda":
            torch.cuda.synchronize(here.device)

    return median_s(forward)


def median_s(work: Callable[[], object]) -> float:
    """Median seconds of `work` over REPEATS tries, after a warm-up."""
    for _ in range(WARM_UP):
        work()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return median(times)


def _gray(table: Table, n_frames: int) -> U8:
    """uint8 [n, H, W]: the first frames of the first sample, one more than `n_frames` if it has."""
    import cv2
    import numpy as np

    reader: Reader = SyntheticReader(table) if table.synthetic else ShardReader(table)
    n = min(n_frames + 1, int(table.frames_N[0]))
    frames = reader.read(0, Span(0, n), None).rgb_HW3
    assert frames is not None
    return np.stack([cv2.cvtColor(rgb_HW3, cv2.COLOR_RGB2GRAY) for rgb_HW3 in frames])


def _device_name(here: Place) -> str:
    if here.device.type == "cuda":
        return torch.cuda.get_device_name(here.device)
    n_threads = torch.get_num_threads()
    return f"the CPU with {n_threads} thread{'s' * (n_threads > 1)}"
