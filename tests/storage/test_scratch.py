"""Unfinished files of killed processes go, those of living ones and of other people stay."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flowprep.storage import scratch_of, sweep_scratch

HOLD = """
import sys, time
from flowprep.storage import scratch_folder, scratch_of
with scratch_folder(scratch_of("s3://b/set"), "train-000000") as folder:
    (folder / "shard.tar").write_bytes(b"half")
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLOWPREP_SCRATCH", str(tmp_path))
    return tmp_path


def test_what_a_killed_process_left_goes_and_what_a_living_one_has_stays() -> None:
    command = [sys.executable, "-c", HOLD]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = []
    for process in processes:
        assert process.stdout is not None
        folders.append(Path(process.stdout.readline().strip()))
    dead, living = processes
    dead.send_signal(signal.SIGKILL)
    dead.communicate()
    sweep_scratch()
    assert [(folder / "shard.tar").exists() for folder in folders] == [False, True]
    living.kill()
    living.communicate()
    sweep_scratch()
    assert not folders[1].exists()


def test_a_link_in_the_folder_that_all_share_leads_nowhere(parent: Path) -> None:
    mine = parent / "home" / "thesis"
    mine.mkdir(parents=True)
    name = scratch_of("s3://b/set").name
    (parent / f"{name.rpartition('-')[0]}-evil").symlink_to(parent / "home")
    inside = parent / name
    inside.mkdir()
    (inside / "train-000000").symlink_to(mine)
    sweep_scratch()
    assert mine.is_dir()
