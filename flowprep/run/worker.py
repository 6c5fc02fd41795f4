"""What runs inside a worker process, whoever started it."""

from __future__ import annotations

import os
from functools import partial

from flowprep.errors import DeviceLost, portable
from flowprep.processes import EXIT_DEVICE_LOST, exit_at_once, watch_memory
from flowprep.run.apart import apart
from flowprep.run.beating import WorkerPulse
from flowprep.run.job import ShardJob, run_shard
from flowprep.run.making import Tools, make_tools
from flowprep.run.pool import Done, Message, Refused, WorkerSpec
from flowprep.run.reporting import Report
from flowprep.shard.layout import Layout

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Worker:
    """Runs shard jobs one after the other; its engine and codecs are made at the first one."""

    def __init__(self, number: int, spec: WorkerSpec) -> None:
        self.number, self.spec = number, spec
        self._tools: Tools | None = None
        self._pulse: WorkerPulse | None = None
        for name in _THREAD_VARIABLES:
            os.environ[name] = str(spec.threads)

    def run(self, job: ShardJob, report: Report) -> Message:
        """Done, or Refused with what went wrong."""
        pulse = self._pulse = self._pulse or WorkerPulse(Layout(job.out), self.number)
        pulse.begin(job)
        message = self._run(job, lambda progress: report(pulse.hear(progress)))
        pulse.end()
        return message

    def _run(self, job: ShardJob, report: Report) -> Message:
        try:
            mark = run_shard(job, self._made_tools(), report, partial(apart, self.spec))
        except DeviceLost as error:  # the shard runs again in a new process
            exit_at_once(EXIT_DEVICE_LOST, f"worker {self.number}: {error}")
        except Exception as error:  # noqa: BLE001 - the driver decides what it means
            return Refused(worker=self.number, error=portable(error))
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


def start_worker(spec: WorkerSpec, number: int) -> Worker:
    """The worker of this process, which is ended when it takes too much memory."""
    watch_memory(spec.memory_limit_bytes)
    return Worker(number, spec)
