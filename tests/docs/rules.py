"""How each kind of command in the pages is tried. A command that has no rule here is a failure.

Commands of flowprep run for real, in this process, in a small sandbox. What is changed in them
first, for speed or since the sandbox is no cluster, is all in these tables.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import click
from click.testing import Result
from pages import ROOT, Line

from flowprep.cli import main

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Cli = Callable[..., Result]

PATHS = {
    **{"/data/videos": "videos", "/new/videos": "videos", "/data/shards": "shards"},
    **{"s3://bucket/videos": "videos", "s3://bucket/shards": "shards"},
    "f/rawframes": "frames/rawframes",
    **{f"kinetics:{part}.csv": f"kinetics:kinetics/{part}.csv" for part in ("train", "val")},
}
"""Paths of the pages, and what stands for them in the sandbox."""
ADDED = {"--executor": "local", "--engine": "constant", "--workers": "1"}
"""Given to each command of flowprep that takes them, unless the page gives them itself."""
BEFORE = {
    "--lift": ("remove", "shards/", "--keys", "takedown.txt"),
    "import": (
        *("export", "shards/", "--to", "rawframes", "--style", "denseflow", "--out", "frames/"),
    ),
}
"""What has to be done first, for commands with this word."""
LEFT_OUT = ("--ray-address",)
"""Options with a value, known to the parser, that have to do with a cluster."""
DRY = "extract"
"""Runs with --dry-run, into a folder that is new unless it says --retry-failed."""
ONLY_PARSED = {
    "demo": "takes long; tests/docs/test_stories.py runs it",
    "bench": "takes long; tests/test_bench.py runs it",
}
TAKES_ADDED = {"verify": "--repair"}
"""Commands that take what is added with this option only."""


def try_flowprep(line: Line, cli: Cli) -> None:
    """It is understood, and it ends with 0."""
    words = in_sandbox(line.words[1:])
    for word in BEFORE.keys() & set(words):
        assert cli(*BEFORE[word]).exit_code == 0
    command = parsed(words)
    if command.name in ONLY_PARSED:
        return
    words = adapted(words, command)
    if command.name == DRY:
        words += ["--dry-run"]
        if "--retry-failed" not in words:
            shutil.rmtree("shards")
    result = cli(*words)
    assert result.exit_code == 0, result.output


def in_sandbox(words: Sequence[str]) -> list[str]:
    """The words with the paths that are there."""
    return [PATHS.get(word, word) for word in words]


def adapted(words: Sequence[str], command: click.Command) -> list[str]:
    """The words of a command with what is added to it and without what is left out."""
    kept, taken = without(words, LEFT_OUT), {o for option in command.params for o in option.opts}
    needed = TAKES_ADDED.get(command.name or "")
    if needed is None or needed in kept:
        kept += [w for k, v in ADDED.items() if k in taken - set(kept) for w in (k, v)]
    return kept


def parsed(words: Sequence[str]) -> click.Command:
    """The command. Raises click.UsageError for options that it does not take."""
    command: click.Command = main
    rest = [word for word in words if word != "--debug"]
    while isinstance(command, click.Group):
        assert rest[0] in command.commands, f"there is no command {rest[0]}"
        command = command.commands[rest.pop(0)]
    command.make_context(command.name, list(rest)).close()  # the files it opened
    return command


def without(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """The words, but for these options and their values."""
    kept, skip = [], False
    for word in words:
        if not skip and word not in options:
            kept.append(word)
        skip = not skip and word in options
    return kept


def try_train(line: Line, cli: Cli) -> None:
    """Its own parser takes the options; tests/docs/test_stories.py runs it."""
    _, _, module, *arguments = line.words
    parse_train(module, arguments)


def parse_train(module: str, arguments: Sequence[str]) -> Any:
    from train.config import parse

    kind = getattr(import_module(module), f"{module.rpartition('.')[2].capitalize()}Config")
    return parse(kind, module, list(arguments))


def try_motionbench(line: Line, cli: Cli) -> None:
    """Its own parser takes the options; tests/motionbench/test_whole.py runs it."""
    from pipelines.motionbench.__main__ import BenchConfig
    from pipelines.motionbench.page import PageConfig
    from train.config import parse

    _, _, module, *arguments = line.words
    kind = {"pipelines.motionbench": BenchConfig, "pipelines.motionbench.page": PageConfig}[module]
    parse(kind, module, arguments)


def try_torchrun(line: Line, cli: Cli) -> None:
    from torch.distributed.run import get_args_parser

    at = line.words.index("--")
    launched = get_args_parser().parse_args(list(line.words[1:at]))
    assert launched.module
    parse_train(launched.training_script, line.words[at + 1 :])


def try_script(line: Line, cli: Cli) -> None:
    """The script is there and knows the options."""
    script = ROOT / line.words[1]
    source = script.read_text("utf-8")
    unknown = [w for w in line.words[2:] if w.startswith("--") and f'"{w}"' not in source]
    assert unknown == []


def try_pip(line: Line, cli: Cli) -> None:
    """What is installed is this package, with extras that it has, or a wheel built before."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for wanted in [word for word in line.words[2:] if not word.startswith("-")]:
        what = re.fullmatch(r"(\.|flowprep)(?:\[([\w,]+)\])?", wanted)
        assert what or wanted.endswith(".whl"), wanted
        if what and what[2]:
            assert set(what[2].split(",")) <= set(project["optional-dependencies"])


def try_make(line: Line, cli: Cli) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert line.words[1:]
    assert set(line.words[1:]) <= targets


def try_ray(line: Line, cli: Cli) -> None:
    """Ray's own parser takes the options."""
    from ray.scripts.scripts import cli as ray_cli

    command = ray_cli.commands[line.words[1]]
    command.make_context(command.name, list(line.words[2:]))


def try_cd(line: Line, cli: Cli) -> None:
    assert (ROOT / line.folder / line.words[1]).is_dir()


def try_docker(line: Line, cli: Cli) -> None:
    """Each --build-arg is one that the Dockerfile has; flowprep takes what an image is run with."""
    if line.words[1] == "run":
        at = next(i for i, word in enumerate(line.words) if word.startswith("flowprep:"))
        assert (ROOT / "docker" / line.words[at].partition(":")[2] / "Dockerfile").is_file()
        parsed(line.words[at + 1 :])
        return
    assert line.words[1] == "build"
    given = list(zip(line.words, line.words[1:], strict=False))
    [place] = [value for key, value in given if key == "-f"] or ["Dockerfile"]
    dockerfile = (ROOT / line.folder / line.words[-1] / place).read_text("utf-8")
    known = set(re.findall(r"^ARG (\w+)", dockerfile, re.MULTILINE))
    assert {value.partition("=")[0] for key, value in given if key == "--build-arg"} <= known


RULES: dict[str, Callable[[Line, Cli], None]] = {
    "flowprep": try_flowprep,
    "python -m train.": try_train,
    "python -m pipelines.motionbench": try_motionbench,
    "python -m pipelines.motionbench.": try_motionbench,
    "python tests/": try_script,
    "torchrun": try_torchrun,
    "pip install": try_pip,
    "make": try_make,
    "ray": try_ray,
    "cd": try_cd,
    "docker": try_docker,
}
"""By how a command begins."""


def rule_for(line: Line) -> Callable[[Line, Cli], None]:
    """Raises LookupError where there is none."""
    for start, rule in RULES.items():
        if line.text == start or line.text.startswith(start if start[-1] in "./" else f"{start} "):
            return rule
    raise LookupError(f"{line.page}: no rule in tests/docs/rules.py tries {line.text!r}")
