"""Ray itself: starting or joining it, its nodes, and questions to them."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flowprep.errors import FlowprepError
from flowprep.run import hello
from flowprep.run.nodes import Node

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

ray.cloudpickle.register_pickle_by_value(hello)

A_LITTLE_GPU = 0.001
"""So that a task sees a GPU which it does not take from anyone."""


def start_here(n_cpus: int) -> None:
    """Start Ray on this machine alone, whatever other Ray there is."""
    _init(
        "this machine",
        address="local",
        num_cpus=n_cpus,
        include_dashboard=False,
        object_store_memory=100 << 20,
        # Ray would wait without end for a process that was killed before it said hello
        _system_config={"prestart_worker_first_driver": False},
    )


def join(address: str) -> None:
    """Join the cluster at `address`. Raises FlowprepError when that cannot be."""
    if "://" in address:
        raise FlowprepError(
            f"{address} is no address of a Ray cluster that workers can be started at",
            "give HOST:PORT as ray start tells it (port 6379), or auto; "
            "from outside of the cluster use ray job submit",
        )
    _init(address, address=address)


def _init(where: str, **options: Any) -> None:
    on_term = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except SystemExit as error:  # Ray's own answer to SIGTERM
        raise KeyboardInterrupt from error
    except Exception as error:  # Ray raises plain ones too, as when its processes start too slowly
        if "Version mismatch" in str(error):
            what = " ".join(str(error).split())
            raise FlowprepError(
                f"the Ray cluster at {where} is of other versions. {what}",
                "install the same Ray and Python here as there",
            ) from error
        raise FlowprepError(
            f"no Ray answers at {where}: {error}",
            "check the address, or run on this machine with --executor local",
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_term)  # Ray puts its own in the place of ours


def leave() -> None:
    """End what `start_here` has started, or leave the cluster."""
    ray.shutdown()


@contextmanager
def stopped() -> Iterator[None]:
    """What Ray raises when its own processes are gone."""
    try:
        yield
    except RayError as error:
        raise FlowprepError(
            f"Ray has stopped: {str(error).splitlines()[0]}",
            "see that Ray runs, then run the same command again: it goes on where it stopped",
        ) from error


def our_node() -> str:
    """The node that this process runs on."""
    found: str = ray.get_runtime_context().get_node_id()
    return found


def nodes() -> list[Node]:
    """The machines that are there now."""
    ours = our_node()
    with stopped():
        found = ray.nodes()
    return [
        Node(
            id=node["NodeID"],
            name=node["NodeManagerHostname"],
            address=node["NodeManagerAddress"],
            cpus=int(node["Resources"].get("CPU", 0)),
            gpus=int(node["Resources"].get("GPU", 0)),
            is_ours=node["NodeID"] == ours,
        )
        for node in found
        if node["Alive"]
    ]


def request(n_workers: int, gpu_share: float) -> None:
    """Tell an autoscaler, if there is one, to make room for so many workers in all."""
    from ray.autoscaler.sdk import request_resources

    bundle = {"CPU": 1.0} | ({"GPU": gpu_share} if gpu_share else {})
    request_resources(bundles=[bundle] * n_workers)


def on_node(node_id: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node_id, soft=False)


class Inquiry:
    """Questions to nodes. Each is answered in a process that ends then, as an engine may leave
    something in it.
    """

    def __init__(self) -> None:
        self._code = hello.code_of(Path(hello.__file__).parents[1])
        self._asked: dict[Any, str] = {}
        self._greet = ray.remote(num_cpus=0, max_retries=0, max_calls=1)(hello.greet)

    def ask(self, node: Node, question: bytes, with_gpu: bool) -> None:
        gpu = A_LITTLE_GPU if with_gpu else 0
        placed = self._greet.options(num_gpus=gpu, scheduling_strategy=on_node(node.id))
        self._asked[placed.remote(self._code, question)] = node.id

    def answers(self) -> Iterator[tuple[str, str, Any]]:
        """(node, why it is of no use or "", the answer) of those that have answered."""
        references = list(self._asked)
        done, _ = (
            ray.wait(references, num_returns=len(references), timeout=0) if references else ([], [])
        )
        for reference in done:
            node_id = self._asked.pop(reference)
            try:
                problem, answer = ray.get(reference)
            except RayError as error:
                problem, answer = f"it cannot be asked: {str(error).splitlines()[-1]}", None
            yield node_id, problem, answer
