"""The compiled program: kept for the next start, and never trusted blindly."""

from __future__ import annotations

import dataclasses
import gc
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowprep.flow.cpu import jit
from flowprep.flow.cpu.jit import Program, Target
from flowprep.flow.cpu.simd import F64, I64, Function

START = "from flowprep.flow.base import get_engine; get_engine('cpu')"


def add_one(number: float = 1.0) -> Function:
    f = Function("add", {"n": I64}, returns=F64)
    f.give_back(f.convert("sitofp", f["n"], F64) + number)
    return f


def start(cache: Path, **environment: str) -> str:
    """What a new process that makes the engine says on stderr."""
    env = {**os.environ, "FLOWPREP_CACHE": str(cache), **environment}
    done = subprocess.run([sys.executable, "-c", START], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def kept(cache: Path) -> list[Path]:
    return sorted(cache.iterdir())


def test_the_first_start_says_that_it_compiles_and_the_second_does_not_compile(cache: Path) -> None:
    assert "compiling the cpu engine for" in start(cache)
    (file,) = kept(cache)
    before = file.stat().st_mtime_ns
    assert start(cache) == ""
    assert kept(cache) == [file]
    assert file.stat().st_mtime_ns == before


def test_processes_that_start_together_agree(cache: Path) -> None:
    env = {**os.environ, "FLOWPREP_CACHE": str(cache)}
    started = [subprocess.Popen([sys.executable, "-c", START], env=env) for _ in range(4)]
    assert [process.wait(timeout=60) for process in started] == [0] * 4
    assert len(kept(cache)) == 1
    assert start(cache) == ""


def test_what_was_kept_is_used(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert Program([add_one()]).add(2) == 3
    assert "compiling" in caplog.text
    caplog.clear()
    assert Program([add_one()]).add(2) == 3
    assert caplog.text == ""


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_a_damaged_file_is_replaced(cache: Path, damage: str) -> None:
    Program([add_one()])
    (file,) = kept(cache)
    whole = file.read_bytes()
    flipped = whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]
    file.write_bytes({"flipped": flipped, "cut": whole[:-1], "empty": b""}[damage])
    assert Program([add_one()]).add(2) == 3
    assert file.read_bytes() == whole


def test_programs_and_processors_do_not_share_a_file(
    cache: Path, targets: dict[str, Target]
) -> None:
    for target in targets.values():
        assert Program([add_one()], target).add(2) == 3
    assert Program([add_one(5.0)]).add(2) == 7
    assert len(kept(cache)) == len(targets) + 1


@pytest.mark.parametrize("what", ["folder", "file"])
@pytest.mark.parametrize("mode", [0o720, 0o702])
def test_what_others_may_write_to_is_neither_read_nor_written(
    cache: Path, caplog: pytest.LogCaptureFixture, what: str, mode: int
) -> None:
    Program([add_one()])
    (file,) = kept(cache)
    (cache if what == "folder" else file).chmod(mode)
    before = file.stat()
    caplog.clear()
    assert Program([add_one()]).add(2) == 3
    assert "others may write to" in caplog.text
    assert "compiling" in caplog.text
    assert (file.stat().st_mtime_ns, kept(cache)) == (before.st_mtime_ns, [file])


def test_what_another_user_owns_is_not_read(
    cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    Program([add_one()])
    caplog.clear()
    monkeypatch.setattr(os, "geteuid", lambda: cache.stat().st_uid + 1)
    assert Program([add_one()]).add(2) == 3
    assert "others may write to" in caplog.text


def test_a_new_folder_is_the_users_alone(cache: Path) -> None:
    Program([add_one()])
    assert cache.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("part", ["compiler", "features"])
def test_another_compiler_or_processor_has_a_file_of_its_own(
    cache: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    host = Target.host()
    Program([add_one()], host)
    if part == "compiler":
        monkeypatch.setattr(jit, "compiler", lambda: "LLVM 99")
    else:
        host = dataclasses.replace(host, features=host.features + ",+fma")
    Program([add_one()], host)
    assert len(kept(cache)) == 2


def test_a_function_outlives_its_program(cache: Path) -> None:
    add = Program([add_one()]).add
    gc.collect()
    others = [Program([add_one(float(n))]) for n in range(20)]
    assert add(2) == 3
    assert [other.add(1) for other in others] == [1 + n for n in range(20)]


def test_a_full_disk_leaves_no_file_behind(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    assert Program([add_one()]).add(2) == 3
    assert "No space left" in caplog.text
    assert caplog.text.count("compiling") == 1
    assert kept(cache) == []


def test_a_relative_folder_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLOWPREP_CACHE", "here")
    assert Program([add_one()]).add(2) == 3
    assert "no absolute path" in caplog.text
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_told_and_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FLOWPREP_CACHE", str(tmp_path / "file" / "below"))
    with caplog.at_level(logging.WARNING):
        assert Program([add_one()]).add(2) == 3
    assert "each start compiles again" in caplog.text
    assert "FLOWPREP_CACHE" in caplog.text


def test_the_cache_lies_where_the_user_or_the_system_wants_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLOWPREP_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    monkeypatch.setenv("HOME", "/c")
    assert jit.cache_folder() == Path("/a")
    monkeypatch.delenv("FLOWPREP_CACHE")
    assert jit.cache_folder() == Path("/b/flowprep")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert jit.cache_folder() == Path("/c/.cache/flowprep")
    monkeypatch.setenv("FLOWPREP_CACHE", "~/x")
    assert jit.cache_folder() == Path("/c/x")


def test_importing_the_engine_does_not_import_the_compiler() -> None:
    check = "import flowprep.flow.cpu.engine, sys; sys.exit('llvmlite' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
