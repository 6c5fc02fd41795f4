"""Exports that are killed, run again, run out of room, or find damage."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowprep.shard.index import load_index
from flowprep.shard.layout import Layout
from flowprep.synth import Motion, render, write_video

DENSEFLOW = ("--to", "rawframes", "--style", "denseflow")


def content(out: Path) -> dict[str, str]:
    """Everything an export is for: all but its own folder."""
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.rglob("*")
        if path.is_file() and ".flowprep" not in path.parts
    }


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, extract: Callable[..., Path]) -> Path:
    """Sixteen samples."""
    root = tmp_path_factory.mktemp("many")
    (root / "videos").mkdir()
    write_video(root / "videos" / "00.mp4", render(Motion(dx_px=1.0), 30, 64, 96, 0), 25)
    for number in range(1, 16):
        shutil.copy(root / "videos" / "00.mp4", root / "videos" / f"{number:02d}.mp4")
    options = ["--engine", "constant", "--size", "native", "--quiet"]
    return extract(root / "videos", root / "shards", *options)


@pytest.fixture(scope="module")
def undisturbed(many: Path, tmp_path_factory: pytest.TempPathFactory, cli: Any) -> dict[str, str]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    result = cli("export", many, "--out", out, *DENSEFLOW)
    assert result.exit_code == 0, result.output
    assert "16 samples exported" in result.output
    return content(out)


def n_noted(out: Path) -> int:
    """Samples that a rerun need not make."""
    noted = out / ".flowprep" / "done.txt"
    return noted.read_text().count("\n") if noted.exists() else 0


@pytest.mark.parametrize(
    "with_signal", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_killed_export_goes_on(
    many: Path, undisturbed: dict[str, str], tmp_path: Path, cli: Any, with_signal: signal.Signals
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "flowprep", "export", str(many), "--out", str(out)]
    with subprocess.Popen(
        [*command, *DENSEFLOW], start_new_session=True, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while n_noted(out) < 3 and time.monotonic() < deadline:
            time.sleep(0.002)
        os.kill(process.pid, with_signal)
        _, said = process.communicate(timeout=60)
    if with_signal == signal.SIGINT:
        assert process.returncode == 130
        assert "run the same command again" in said
    there = content(out)
    n_there = len(list(out.glob("rawframes/*")))
    assert 3 <= n_there < 16
    assert there.items() <= undisturbed.items()  # samples are whole from the moment they are there
    assert not list(out.glob("*.txt"))
    again = cli("export", many, "--out", out, *DENSEFLOW)
    assert again.exit_code == 0, again.output
    assert content(out) == undisturbed
    assert "were there" in again.output
    third = cli("export", many, "--out", out, *DENSEFLOW)
    assert "0 samples exported, 16 were there" in third.output


@pytest.mark.slow
def test_a_file_cut_short_by_a_power_cut_is_made_again(
    many: Path, undisturbed: dict[str, str], tmp_path: Path, cli: Any
) -> None:
    out = tmp_path / "out"
    assert cli("export", many, "--out", out, *DENSEFLOW).exit_code == 0
    (out / "rawframes" / "03" / "flow_x_00004.jpg").write_bytes(b"")
    (out / "rawframes" / "05" / "img_00000.jpg").unlink()
    again = cli("export", many, "--out", out, *DENSEFLOW)
    assert "2 samples exported, 14 were there" in again.output
    assert content(out) == undisturbed


@pytest.mark.slow
def test_another_export_in_the_same_folder_is_refused(
    many: Path, dataset: Path, tmp_path: Path, cli: Any
) -> None:
    out = tmp_path / "out"
    assert cli("export", many, "--out", out, "--to", "npz").exit_code == 0
    for options, named in (
        (DENSEFLOW, "to: 'npz' -> 'rawframes'"),
        (("--to", "flo"), "to: 'npz' -> 'flo'"),
    ):
        result = cli("export", many, "--out", out, *options)
        assert result.exit_code == 2
        assert named in result.output
    result = cli("export", dataset, "--out", out, "--to", "npz")
    assert result.exit_code == 2
    assert "dataset: " in result.output


def test_a_folder_of_other_files_is_refused(many: Path, tmp_path: Path, cli: Any) -> None:
    (tmp_path / "mine").write_text("mine")
    result = cli("export", many, "--out", tmp_path, "--to", "npz")
    assert result.exit_code == 2
    assert "holds other files" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_damaged_sample_is_named_and_the_others_are_exported(
    many: Path, undisturbed: dict[str, str], tmp_path: Path, cli: Any
) -> None:
    shards = tmp_path / "shards"
    shutil.copytree(many, shards)
    shard, row = load_index(Layout(shards).index)[3]
    with Layout(shards).tar(shard).open("r+b") as tar:
        tar.seek(row.flow_offset + row.flow_size // 2)
        byte = tar.read(1)
        tar.seek(-1, os.SEEK_CUR)
        tar.write(bytes([byte[0] ^ 1]))
    out = tmp_path / "out"
    result = cli("export", shards, "--out", out, *DENSEFLOW)
    assert result.exit_code == 3
    assert f"{row.key}: its bytes in {shard}.tar are damaged" in result.output
    assert "15 samples exported" in result.output
    name = Path(row.path).stem
    missing = {path for path in undisturbed if path.startswith(f"rawframes/{name}/")}
    lists = {"train_rgb.txt", "train_flow.txt"}
    found = content(out)
    assert set(found) == set(undisturbed) - missing
    assert all(found[path] == undisturbed[path] for path in set(found) - lists)
    assert f"{name} 30 -1" not in (out / "train_rgb.txt").read_text()
    shutil.copy(Layout(many).tar(shard), Layout(shards).tar(shard))  # as a repair would
    assert cli("export", shards, "--out", out, *DENSEFLOW).exit_code == 0
    assert content(out) == undisturbed


@pytest.mark.slow
def test_a_full_disk_ends_it_with_a_word_and_it_goes_on(
    many: Path, undisturbed: dict[str, str], tmp_path: Path, cli: Any
) -> None:
    """The limit on a file's size stands in for the disk: the system refuses to write either way."""
    out = tmp_path / "out"
    limited = "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
    limited += "from flowprep.cli import main; main()"
    command = [sys.executable, "-c", limited, "export", str(many), "--out", str(out)]
    done = subprocess.run(
        [*command, "--to", "npz"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "cannot write" in done.stderr
    assert "run the same command again" in done.stderr
    assert not list(out.rglob("*.npz"))
    result = cli("export", many, "--out", out, "--to", "npz")
    assert result.exit_code == 0, result.output
    assert len(list(out.rglob("*.npz"))) == 16


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--to", "rawframes"), 2, "needs --style"),
        (("--to", "npz", "--style", "tsn"), 2, "--style does nothing with --to npz"),
        (("--to", "flo", "--bound", "5"), 2, "--bound does nothing with --to flo"),
        ((*DENSEFLOW, "--bound", "0"), 2, "--bound 0 is not usable"),
        ((*DENSEFLOW, "--split", "none"), 2, "there are: train"),
    ],
)
def test_bad_orders(
    many: Path, tmp_path: Path, cli: Any, options: tuple[str, ...], code: int, said: str
) -> None:
    result = cli("export", many, "--out", tmp_path / "out", *options)
    assert (result.exit_code, said in result.output) == (code, True), result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["key", "split"])
def test_names_that_lead_out_of_the_folder_are_damage(
    many: Path, tmp_path: Path, cli: Any, name: str
) -> None:
    """A stranger's dataset; a split is in the names of lists, a key in that of unfinished files."""
    shards = tmp_path / "a" / "b" / "shards"
    shutil.copytree(many, shards)
    mark = min((shards / "_flowprep" / "shards").glob("*.json"))
    row = json.loads(mark.read_text())["samples"][0]
    mark.write_text(mark.read_text().replace(f'"{row[name]}"', '"../../evil"'))
    result = cli("export", shards, "--out", tmp_path / "a" / "b" / "out", *DENSEFLOW)
    assert result.exit_code == 2
    assert f"no {'sample' if name == 'key' else 'split'} is called '../../evil'" in result.output
    assert not list(tmp_path.rglob("*evil*"))


def test_an_export_does_not_go_into_the_dataset(many: Path, cli: Any) -> None:
    before = {path: path.stat().st_mtime_ns for path in many.rglob("*")}
    result = cli("export", many, "--out", many / "out", "--to", "npz")
    assert (result.exit_code, "lies in the dataset" in result.output) == (2, True)
    assert {path: path.stat().st_mtime_ns for path in many.rglob("*")} == before


def test_keys_that_are_no_text_are_refused(many: Path, tmp_path: Path, cli: Any) -> None:
    (tmp_path / "keys.txt").write_bytes(b"\xff\xfe")
    chosen = ("--keys", tmp_path / "keys.txt")
    result = cli("export", many, "--out", tmp_path / "out", "--to", "npz", *chosen)
    assert (result.exit_code, "keys.txt, line 1: not UTF-8" in result.output) == (2, True)


def test_unknown_keys_and_no_dataset(many: Path, tmp_path: Path, cli: Any) -> None:
    (tmp_path / "keys.txt").write_text("no-such-key\n")
    chosen = ("--keys", tmp_path / "keys.txt")
    result = cli("export", many, "--out", tmp_path / "out", "--to", "npz", *chosen)
    assert result.exit_code == 2
    assert "no-such-key" in result.output
    result = cli("export", tmp_path, "--out", tmp_path / "out", "--to", "npz")
    assert result.exit_code == 2
    assert "no flowprep dataset here" in result.output


def test_blanks_in_the_folder_are_refused_where_lists_would_break(
    many: Path, tmp_path: Path, cli: Any
) -> None:
    result = cli("export", many, "--out", tmp_path / "a b", "--to", "rawframes", "--style", "tsn")
    assert result.exit_code == 2
    assert "without blanks" in result.output
