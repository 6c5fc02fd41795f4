"""Pools that lose processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from flowprep.processes import kill_children, process_pool

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


@pytest.mark.timeout(60)
def test_a_pool_that_lost_a_process_does_not_wait_for_one_that_is_stopped() -> None:
    with process_pool(2) as pool:
        naps = [pool.submit(time.sleep, 300) for _ in range(2)]
        wait_until_all_run(n_processes=2, pids=(pids := list(pool._processes)))
        os.kill(pids[1], signal.SIGSTOP)
        os.kill(pids[0], signal.SIGKILL)  # the executor may not watch the later one yet
        for nap in naps:
            with pytest.raises(BrokenProcessPool):
                nap.result(timeout=30)


@pytest.mark.timeout(60)
def test_a_pool_does_not_wait_for_an_idle_process_that_is_stopped() -> None:
    with process_pool(2) as pool:
        assert [nap.result() for nap in [pool.submit(time.sleep, 0.5) for _ in range(2)]]
        os.kill(next(iter(pool._processes)), signal.SIGSTOP)


def wait_until_all_run(n_processes: int, pids: list[int]) -> None:
    """Until they sleep in what they were given, with all their threads."""
    assert len(pids) == n_processes
    while any(len(os.listdir(f"/proc/{pid}/task")) < 2 for pid in pids):
        time.sleep(0.05)


def test_an_exception_ends_what_is_running() -> None:
    def fail() -> None:
        with process_pool(1) as pool:
            pool.submit(time.sleep, 300)
            wait_until_all_run(1, list(pool._processes))
            raise KeyError

    began = time.monotonic()
    with pytest.raises(KeyError):
        fail()
    assert time.monotonic() - began < 60


def test_a_child_that_is_stopped_and_that_nobody_knows_of_is_ended() -> None:
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(300,))
    child.start()
    os.kill(child.pid or 0, signal.SIGSTOP)
    kill_children()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
