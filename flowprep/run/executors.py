"""Which workers a run gets, and what they compute flow with."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from flowprep.config import Settings
from flowprep.errors import DeviceLost, FlowprepError
from flowprep.flow.base import get_engine, plans_memory, resolve_auto, uses_gpu
from flowprep.processes import process_pool, usable_cores
from flowprep.run.pool import CLIP_TIMEOUT_S, WorkerSpec
from flowprep.run.probing import ProbeLimits
from flowprep.run.worker import start_worker

EXECUTORS = ("ray", "local")


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Where and with how many workers to run."""

    executor: str = "ray"
    ray_address: str | None = None
    workers: int = 0  # 0 = one per core, or `workers_per_gpu` per GPU
    workers_per_gpu: int = 0  # 0 = one for every two cores of the GPU's share, 2 to 8
    gpu_mem_gib: float = 0  # of each GPU, by all of its workers; 0 = as the engine thinks best
    worker_mem_gib: float = 0  # a worker may hold so much; 0 = half of its machine's memory
    clip_timeout_s: float = CLIP_TIMEOUT_S  # a clip may go so long without progress

    @property
    def address(self) -> str:
        """Of the Ray cluster to join, "" when the work stays on this machine.

        A job that Ray has started finds it in its environment.
        """
        if self.executor != "ray":
            return ""
        address = self.ray_address or os.environ.get("RAY_ADDRESS", "")
        return "" if address == "local" else address

    @property
    def probe_limits(self) -> ProbeLimits:
        memory_bytes = int(self.worker_mem_gib * 2**30)
        return ProbeLimits(
            n_workers=self.cpus, stall_s=self.clip_timeout_s, memory_bytes=memory_bytes
        )

    @property
    def cpus(self) -> int:
        """Cores of this machine that this process may use."""
        return usable_cores()


def choose_engine(settings: Settings) -> tuple[str, str]:
    """(engine, why) where the workers run. Raises FlowprepError when it is not live there.

    Where there is a GPU it is tried in a process of its own: in this one its CUDA context would
    stay, and take memory from the workers.
    """
    if not _devices():
        return try_engine(settings.engine, settings.engine_params)
    with process_pool(1) as pool:
        try:
            return pool.submit(try_engine, settings.engine, settings.engine_params).result()
        except BrokenProcessPool as error:
            raise FlowprepError(
                f"the process that tried engine {settings.engine!r} died",
                "try flowprep engines, and another --engine",
            ) from error


def try_engine(engine: str, params: dict[str, Any]) -> tuple[str, str]:
    """(engine, its build) in this process. Raises FlowprepError when it is not live here."""
    if engine == "auto":
        return resolve_auto()
    try:
        return engine, get_engine(engine, **params).build
    except (DeviceLost, MemoryError) as error:
        raise FlowprepError(
            f"engine {engine!r} cannot run here: {error}",
            "see with nvidia-smi who has the GPU, or choose another --engine",
        ) from error


def local_specs(resources: Resources, settings: Settings, n_jobs: int) -> list[WorkerSpec]:
    """The workers that executor `local` starts for so many shards."""
    devices: list[int | None] = _devices() if uses_gpu(settings.engine) else [None]
    return _specs(resources, settings, n_jobs, resources.cpus, devices)


@dataclass(frozen=True)
class Berth:
    """A worker's place on a cluster: what it takes of a node, and how it is started.

    `start(number)` gives what the worker's process runs.
    """

    start: Callable[[int], Any]
    cpus: int = 1
    gpu_share: float = 0.0
    node_id: str | None = None  # None = anywhere


def local_berths(resources: Resources, settings: Settings, n_jobs: int) -> list[Berth]:
    """The workers of a Ray that was started on this machine for so many shards."""
    specs = local_specs(resources, settings, n_jobs)
    if not uses_gpu(settings.engine):
        return [Berth(partial(start_worker, spec), cpus=spec.threads) for spec in specs]
    share = 1 / _workers_per_gpu(resources, resources.cpus, len(_devices()))
    return [Berth(partial(start_worker, replace(s, device=0)), gpu_share=share) for s in specs]


def node_berths(
    resources: Resources, settings: Settings, node_id: str, cpus: int, gpus: int
) -> list[Berth]:
    """All the workers that a node of a cluster has room for: one per core, or some per GPU.

    A worker sees its GPU, or its share of one, as device 0.
    """
    on_gpu = uses_gpu(settings.engine)
    per_gpu = max(1, min(_workers_per_gpu(resources, cpus, gpus), cpus // max(1, gpus)))
    n_workers = min(cpus, gpus * per_gpu) if on_gpu else cpus
    spec = WorkerSpec(
        settings=settings,
        device=0 if on_gpu else None,
        threads=max(1, cpus // n_workers) if on_gpu and n_workers else 1,
        engine_options=_engine_options(resources, settings, per_gpu),
        stall_s=resources.clip_timeout_s,
        memory_bytes=int(resources.worker_mem_gib * 2**30),
    )
    start = partial(start_worker, spec)
    return [Berth(start, 1, 1 / per_gpu if on_gpu else 0.0, node_id)] * n_workers


def _specs(
    resources: Resources,
    settings: Settings,
    n_jobs: int,
    cpus: int,
    devices: list[int | None],
) -> list[WorkerSpec]:
    """CPU engines: a worker per core. GPU engines: some per device, which share the cores."""
    if not devices:
        raise FlowprepError(
            f"engine {settings.engine!r} needs a GPU and none is here", "see flowprep engines"
        )
    on_gpu = devices != [None]
    per_gpu = _workers_per_gpu(resources, cpus, len(devices))
    wanted = resources.workers or (len(devices) * per_gpu if on_gpu else cpus)
    n_workers = max(1, min(wanted, n_jobs))
    if on_gpu:
        threads = [max(1, cpus // wanted)] * n_workers
    else:
        threads = _cpu_threads(resources, n_workers, cpus)
    return [
        WorkerSpec(
            settings=settings,
            device=devices[i % len(devices)],
            threads=threads[i],
            engine_options=_engine_options(resources, settings, -(-wanted // len(devices))),
            stall_s=resources.clip_timeout_s,
            memory_bytes=int(resources.worker_mem_gib * 2**30),
        )
        for i in range(n_workers)
    ]


def _workers_per_gpu(resources: Resources, cpus: int, n_gpus: int) -> int:
    """A worker decodes and encodes in a thread each, so two cores keep one busy."""
    return resources.workers_per_gpu or min(8, max(2, cpus // max(1, n_gpus) // 2))


def _engine_options(resources: Resources, settings: Settings, per_gpu: int) -> dict[str, Any]:
    """What an engine that plans its GPU memory is told of its neighbours."""
    if not plans_memory(settings.engine):
        if resources.gpu_mem_gib:
            raise FlowprepError(
                f"--gpu-mem is not for engine {settings.engine!r}", "leave it out, or --engine cuda"
            )
        return {}
    options: dict[str, Any] = {"gpu_share": 1 / per_gpu}
    if resources.gpu_mem_gib:
        options["gpu_bytes"] = int(resources.gpu_mem_gib * 2**30)
    return options


def _cpu_threads(resources: Resources, n_workers: int, cpus: int) -> list[int]:
    """A thread each; with fewer jobs than cores the spare cores as well, unless the user has said
    how many workers there shall be.
    """
    if resources.workers:
        return [1] * n_workers
    each, more = divmod(cpus, n_workers)
    return [each + (i < more) for i in range(n_workers)]


def _devices() -> list[int | None]:
    """Numbers of the CUDA devices this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return list(range(len([v for v in visible.split(",") if v.strip() not in ("", "-1")])))
    return list(range(len(list(Path("/dev").glob("nvidia[0-9]*")))))
