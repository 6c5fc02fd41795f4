"""Where the work is done: on this machine, or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Protocol, TypeVar

from flowprep.config import Settings
from flowprep.errors import FlowprepError
from flowprep.records import Video
from flowprep.run.executors import Resources, choose_engine, local_berths, local_specs
from flowprep.run.job import ShardJob
from flowprep.run.machine import installed_versions
from flowprep.run.pool import Pool
from flowprep.run.probing import Reader, probe_all
from flowprep.run.progress import Display
from flowprep.shard.layout import Layout
from flowprep.storage import Place

T = TypeVar("T")


class Workplace(Protocol):
    """What a run needs of the machines it works on."""

    @property
    def cores(self) -> int: ...

    def choose_engine(
        self, settings: Settings, root: Place, layout: Layout | None
    ) -> tuple[str, str]:
        """(engine, its build) of the workers, which read below `root` and write to `layout`.

        Asked first. Raises FlowprepError when there is none, or nobody who could work.
        """
        ...

    def versions(self) -> dict[str, str]:
        """Of what can change output bytes, where the workers run."""
        ...

    def probe(self, root: Place, videos: list[Video], reader: Reader) -> Iterable[Video]:
        """Every video probed, in the order they finish."""
        ...

    def call(self, function: Callable[[], T]) -> T:
        """What a function gives where the workers run."""
        ...

    def open_pool(self, settings: Settings, n_jobs: int) -> AbstractContextManager[Pool[ShardJob]]:
        """Workers for `n_jobs` shards, ended on the way out."""
        ...


@contextmanager
def open_workplace(resources: Resources, display: Display) -> Iterator[Workplace]:
    """This machine, or the cluster that is to be joined, which is left on the way out.

    Raises FlowprepError when there is no cluster there.
    """
    if not resources.address:
        yield Here(resources)
        return
    _require_ray()
    from flowprep.run.cluster import joined

    with joined(resources, display) as cluster:
        yield cluster


class Here:
    """This machine, with plain processes or a Ray of its own."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    @property
    def cores(self) -> int:
        return self._resources.cpus

    def choose_engine(
        self, settings: Settings, root: Place, layout: Layout | None
    ) -> tuple[str, str]:
        return choose_engine(settings)

    def versions(self) -> dict[str, str]:
        return installed_versions()

    def probe(self, root: Place, videos: list[Video], reader: Reader) -> Iterable[Video]:
        return probe_all(root, self._resources.probe_limits, videos, reader)

    def call(self, function: Callable[[], T]) -> T:
        return function()

    @contextmanager
    def open_pool(self, settings: Settings, n_jobs: int) -> Iterator[Pool[ShardJob]]:
        if self._resources.executor == "local":
            from flowprep.run.local import LocalPool

            with closing(LocalPool(local_specs(self._resources, settings, n_jobs))) as processes:
                yield processes
            return
        _require_ray()
        from flowprep.run import actors, ray

        ray.start_here(max(self._resources.cpus, self._resources.workers))
        try:
            berths = local_berths(self._resources, settings, n_jobs)
            with closing(actors.RayPool(berths)) as pool:
                yield pool
        finally:
            ray.leave()


def _require_ray() -> None:
    """Raise FlowprepError when Ray is not installed."""
    try:
        import flowprep.run.ray  # noqa: F401
    except ImportError as missing:
        raise FlowprepError(
            f"Ray is not installed: {missing}", "pip install ray, or pass --executor local"
        ) from missing
