"""The command line: its flags, its help, its exit codes, and what it prints for machines."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result

from flowprep.cli import main
from flowprep.config import Settings, load_toml, settings_from
from flowprep.run import refresh

MakeVideo = Callable[..., Path]
Cli = Callable[..., Result]
FAST = ("--engine", "constant", "--executor", "local", "--workers", 1, "--size", "native")
SLOW_TO_LOAD = ("ray", "cv2", "av", "numba", "torch", "pyarrow", "numpy", "rich")

FLAGS = {
    "": "--debug --help --version",
    "extract": (
        "--apply-sar --bound --clip-frames --clip-max --clip-stride --dry-run --engine "
        "--engine-param --executor --flow-codec --flow-map --fps --help --ignore-sar --join-report "
        "--labels "
        "--log-json --max-failures --out --quiet --ray-address --recipe --resize --retry-failed "
        "--rgb-codec --seed --shard-frames --size --src --strict-versions --stride --workers "
        "--workers-per-gpu --gpu-mem --worker-mem --clip-timeout"
    ),
    "verify": (
        "--deep --executor --gpu-mem --help --json --ray-address --recompute --repair --seed --src "
        "--workers --workers-per-gpu --worker-mem --clip-timeout"
    ),
    "export": "--bound --help --image --keys --out --prune --split --style --to",
    "import": "--help",
    "status": "--help --json",
    "report": "--help --key --out --samples --seed",
    "show": "--help --max-px --out",
    "relabel": "--classes --cls --help",
    "remove": "--help --key --keys --lift",
    "engines": "--help",
    "recipes": "--help",
    "demo": "--executor --help",
    "bench": "--engine --fps --help --hours --json --seconds --size",
}
"""A flag that goes or is renamed breaks scripts: say so in CHANGELOG.md."""


def commands() -> dict[str, click.Command]:
    return {"": main, **main.commands}


@pytest.mark.parametrize("name", FLAGS)
def test_the_flags_stay(name: str) -> None:
    command = commands()[name]
    context = click.Context(command, help_option_names=["-h", "--help"])
    options = [p for p in command.get_params(context) if isinstance(p, click.Option)]
    flags = {f for p in options for f in [*p.opts, *p.secondary_opts] if f.startswith("--")}
    assert flags == set(FLAGS[name].split())


def test_there_is_no_command_without_a_list_of_its_flags() -> None:
    assert set(commands()) == set(FLAGS)


@pytest.mark.parametrize("name", FLAGS)
def test_every_command_and_option_has_help(cli: Cli, name: str) -> None:
    shown = cli(*([name] if name else []), "--help")
    assert shown.exit_code == 0
    command = commands()[name]
    assert command.help
    assert command.help.splitlines()[0] in " ".join(shown.output.split())
    options = [p for p in command.params if isinstance(p, click.Option)]
    assert [p.name for p in options if not p.help] == []


def test_help_loads_nothing_that_takes_long() -> None:
    code = (
        "import sys, flowprep.cli\n"
        "try:\n    flowprep.cli.main(['extract', '--help'])\n"
        "except SystemExit:\n    pass\n"
        f"print([m for m in {SLOW_TO_LOAD} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--clip-frames" in done.stdout
    assert done.stderr.strip() == "[]"


def test_no_command_is_cut_short_in_the_list_of_commands(cli: Cli) -> None:
    assert "..." not in cli("--help").output.replace("[ARGS]...", "")
    assert "..." not in cli("import", "--help").output.replace("[ARGS]...", "")


def test_the_version_is_that_of_the_package(cli: Cli) -> None:
    import flowprep

    assert cli("--version").output == f"flowprep, version {flowprep.__version__}\n"


def test_the_module_runs_as_the_command_does() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flowprep", "verify", "/nowhere"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Error: /nowhere: no such folder\nHint: ")


def test_engines_says_of_each_whether_it_is_live_and_how_to_get_it(cli: Cli) -> None:
    from flowprep.flow.base import registry

    shown = cli("engines").output
    for name in registry():
        assert name in shown
    missing = [block for block in shown.split("\nmissing")[1:]]
    assert all(" -> " in block for block in missing)


RECIPES = Path(__file__).resolve().parents[1] / "pipelines" / "recipes"


def test_recipes_lists_each_as_the_options_that_make_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given to extract, they are the settings in the file."""
    monkeypatch.setattr("importlib.resources.files", lambda package: RECIPES)
    shown = cli("recipes")
    assert shown.exit_code == 0
    for path in RECIPES.glob("*.toml"):
        recipe = load_toml(path)
        head, options, *rest = shown.output.partition(f"{path.stem} ")[2].split("\n")
        assert head.strip() == recipe["recipe"]["about"]
        assert not rest[0]
        given = main.commands["extract"].make_context(
            "extract", ["--src", "videos", "--out", "shards", *options.split()]
        )
        known, unset = asdict(Settings()), (None, ())
        values = {k: v for k, v in given.params.items() if k in known and v not in unset}
        assert recipe["settings"]["flow_map"] in options
        assert replace(Settings(), **values) == settings_from(recipe["settings"], path.name)


# --- one small dataset ------------------------------------------------------------------------


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def lines(result: Result) -> list[dict[str, Any]]:
    """Standard output as JSON, line by line."""
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, make_video: MakeVideo) -> Path:
    """Three good videos of two classes, and one that is empty."""
    folder = tmp_path_factory.mktemp("videos")
    for name in ("walk/a.mp4", "walk/b.mp4", "run/é.mp4"):
        make_video(folder / name)
    (folder / "run" / "empty.mp4").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def extracted(
    tmp_path_factory: pytest.TempPathFactory, cli: Cli, videos: Path
) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("dataset") / "out"
    return out, cli("extract", "--src", videos, "--out", out, *FAST, "--log-json")


def test_a_dry_run_tells_the_plan_and_writes_nothing(
    cli: Cli, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresh, "SAVE_EVERY_S", 0.0)  # a long one would save what it has
    before = tree(videos.parent)
    result = cli("extract", "--src", videos, "--out", tmp_path / "o", *FAST, "--dry-run")
    assert result.exit_code == 0
    for part in ("│ videos", "│ 4", "train 4", "constant", "classes"):
        assert part in result.stdout
    assert "empty.mp4: empty-file: " in result.stdout
    assert list(tmp_path.iterdir()) == []
    assert tree(videos.parent) == before


def test_a_dry_run_of_a_dataset_leaves_it_alone(
    cli: Cli, videos: Path, extracted: tuple[Path, Result]
) -> None:
    out, _ = extracted
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    result = cli("extract", "--src", videos, "--out", out, *FAST, "--dry-run", "--log-json")
    assert lines(result)[-1]["shards_to_make"] == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_a_dry_run_tells_machines_the_facts(cli: Cli, videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    result = cli("extract", "--src", videos, "--out", out, *FAST, "--dry-run", "--log-json")
    (plan,) = [line for line in lines(result) if line["event"] == "plan"]
    facts = {"videos": 4, "clips": 4, "shards": 4, "shards_to_make": 4, "frames": 24, "flows": 21}
    assert {name: plan[name] for name in facts} == facts
    assert plan["engine"] == "constant"
    assert plan["refused"] == 1
    assert [(r["path"], r["reason"]) for r in plan["refusals"]] == [("run/empty.mp4", "empty-file")]
    assert plan["pairs_tried"] > 0
    assert plan["estimated_bytes"] > 0
    assert plan["estimated_s"] >= 0
    assert result.stderr == ""


def test_a_run_tells_machines_one_object_a_line(extracted: tuple[Path, Result]) -> None:
    _, result = extracted
    assert result.exit_code == 3
    told = lines(result)
    assert {"note", "probe", "progress", "shard", "summary"} <= {line["event"] for line in told}
    summary = told[-1]
    facts = {"planned": 4, "samples": 3, "failures": 1, "frames": 24, "flows": 21, "lost": []}
    assert {name: summary[name] for name in facts} == facts
    (failure,) = summary["failed"]
    assert (failure["path"], failure["reason"]) == ("run/empty.mp4", "empty-file")
    shards = [line for line in told if line["event"] == "shard"]
    assert sum(line["samples"] for line in shards) == 3
    assert "walk" in told[0]["text"]
    assert result.stderr == ""


def test_quiet_says_only_problems_and_the_summary(
    cli: Cli, videos: Path, extracted: tuple[Path, Result]
) -> None:
    out, _ = extracted
    result = cli("extract", "--src", videos, "--out", out, *FAST, "--quiet")
    assert result.stderr == ""
    assert "empty.mp4: empty-file: " in result.stdout


@pytest.mark.parametrize(("allowed", "code"), [(0, 3), (1, 0), (5, 0)])
def test_max_failures(
    cli: Cli, videos: Path, extracted: tuple[Path, Result], allowed: int, code: int
) -> None:
    out, _ = extracted
    result = cli("extract", "--src", videos, "--out", out, *FAST, "--max-failures", allowed)
    assert result.exit_code == code


def test_verify_is_0_on_a_whole_dataset_and_1_on_a_damaged_one(
    cli: Cli, extracted: tuple[Path, Result], tmp_path: Path
) -> None:
    whole, damaged = extracted[0], tmp_path / "damaged"
    assert cli("verify", whole).exit_code == 0
    shutil.copytree(whole, damaged)
    tar = sorted(damaged.glob("*.tar"))[0]
    tar.write_bytes(tar.read_bytes()[:-1])
    assert cli("verify", damaged).exit_code == 1
    result = cli("verify", damaged, "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["deep"] is False
    assert any(tar.name in finding["file"] for finding in report["findings"])


def test_a_usage_error_is_2_and_names_the_command(cli: Cli) -> None:
    result = cli("extract", "--out", "x")
    assert result.exit_code == 2
    assert "Missing option '--src'" in result.stderr
    assert "Try 'flowprep extract --help'" in result.stderr
    assert cli("extrakt").exit_code == 2


@pytest.mark.parametrize("number", ["nan", "inf"])
@pytest.mark.parametrize(
    "command",
    [
        ("extract", "--src", ".", "--out", "x", "--clip-timeout"),
        ("extract", "--src", ".", "--out", "x", "--worker-mem"),
        ("extract", "--src", ".", "--out", "x", "--gpu-mem"),
        ("bench", "--engine", "constant", "--hours"),
        ("bench", "--engine", "constant", "--seconds"),
        ("show", ".", "KEY", "--max-px"),
    ],
)
def test_what_is_no_number_to_count_with_is_refused(
    cli: Cli, command: tuple[str, ...], number: str
) -> None:
    result = cli(*command, number)
    assert result.exit_code == 2
    assert f"{command[-1]}': {number}: give a finite number" in result.output


def test_an_interrupt_is_130_and_says_how_to_go_on(
    cli: Cli, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flowprep.run import extract

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(extract, "prepare", interrupted)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # they are the tests' own
    result = cli("extract", "--src", videos, "--out", tmp_path / "out", *FAST)
    assert result.exit_code == 130
    assert "Error: interrupted\nHint: run the same command again" in result.stderr


def test_a_terminal_without_the_letters_of_a_name_is_no_error(
    videos: Path, extracted: tuple[Path, Result]
) -> None:
    out, _ = extracted
    (videos / "run" / "日本.mp4").write_bytes(b"")
    arguments = ["extract", "--src", videos, "--out", out, *FAST, "--dry-run"]
    done = subprocess.run(
        [sys.executable, "-m", "flowprep", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    (videos / "run" / "日本.mp4").unlink()
    assert done.returncode == 0, done.stderr
    assert "\\u65e5\\u672c.mp4: empty-file" in done.stdout


def test_a_closed_pipe_ends_a_run_without_a_word(videos: Path, tmp_path: Path) -> None:
    arguments = ["extract", "--src", videos, "--out", tmp_path / "o", *FAST, "--dry-run"]
    command = [sys.executable, "-m", "flowprep", *map(str, arguments), "--log-json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 1
