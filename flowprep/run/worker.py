"""What runs inside a worker process, whoever started it."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from flowprep.errors import DeviceLost, FlowprepError
from flowprep.run.job import Progress, ShardJob, Tools, make_tools, run_shard
from flowprep.run.schedule import Done, Message, Refused, WorkerSpec

EXIT_DEVICE_LOST = 75  # EX_TEMPFAIL of sysexits.h
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Worker:
    """Runs shard jobs one after the other; its engine and codecs are made at the first one."""

    def __init__(self, number: int, spec: WorkerSpec) -> None:
        self.number, self.spec = number, spec
        self._tools: Tools | None = None
        for name in _THREAD_VARIABLES:
            os.environ[name] = str(spec.threads)

    def run(self, job: ShardJob, report: Callable[[Progress], None]) -> Message:
        """Done, or Refused with what went wrong."""
        try:
            mark = run_shard(job, self._made_tools(), report)
        except DeviceLost as error:
            print(f"worker {self.number}: {error}", file=sys.stderr, flush=True)  # noqa: T201
            os._exit(EXIT_DEVICE_LOST)  # the shard runs again in a new process
        except Exception as error:  # noqa: BLE001 - the driver decides what it means
            return Refused(worker=self.number, error=_portable(error))
        return Done(
            worker=self.number,
            shard=job.shard,
            n_samples=len(mark.samples),
            failures=mark.failures,
        )

    def _made_tools(self) -> Tools:
        if self._tools is None:
            import cv2

            cv2.setNumThreads(self.spec.threads)
            self._tools = make_tools(
                self.spec.settings,
                device=self.spec.device,
                threads=self.spec.threads,
                engine_options=self.spec.engine_options,
            )
        return self._tools


def _portable(error: Exception) -> Exception:
    """An exception that survives the way to the driver, whatever class it was."""
    if isinstance(error, FlowprepError):
        return error
    if isinstance(error, OSError):
        return OSError(error.errno, error.strerror or str(error))
    return RuntimeError("".join(traceback.format_exception(error)).rstrip())
