"""A bar for who watches, and nothing for who does not."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest


def _on_terminal(*arguments: object) -> str:
    """What a command shows on a terminal that is its standard error."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "flowprep", *map(str, arguments)]
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=env) as process:
        os.close(theirs)
        shown = b""
        try:
            while block := os.read(ours, 4096):
                shown += block
        except OSError:  # the other end is closed
            pass
        process.communicate(timeout=60)
    os.close(ours)
    return shown.decode()


def test_bytes_on_a_terminal(pristine: Path) -> None:
    total = sum(tar.stat().st_size for tar in pristine.glob("*.tar"))
    shown = _on_terminal("verify", pristine)
    assert "verify" in shown
    assert f"{total / 1000:.1f} kB" in shown


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_nothing_elsewhere(options: list[str], pristine: Path) -> None:
    if options:
        assert _on_terminal("verify", pristine, *options).strip() == ""
        return
    command = [sys.executable, "-m", "flowprep", "verify", str(pristine)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stderr == ""
