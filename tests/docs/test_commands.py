"""Every command line in README.md and docs/ works: see rules.py for what that means of each."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import Result
from pages import PAGES, Line, lines, lines_of, mentions
from rules import rule_for

from flowprep.cli import main

Cli = Callable[..., Result]
NAMES = {line.text: line for line in lines()}


@pytest.mark.parametrize("text", NAMES)
def test_the_command_works(text: str, cli: Cli, sandbox: Path) -> None:
    line = NAMES[text]
    rule_for(line)(line, cli)


@pytest.mark.parametrize("line", mentions(), ids=lambda line: line.text)
def test_the_options_in_running_text_are_real(line: Line) -> None:
    """Such a command may lack what it needs, but not the options it is shown with."""
    command: click.Command = main
    rest = [word for word in line.words[1:] if word != "--debug"]
    while isinstance(command, click.Group) and rest:
        command = command.commands[rest.pop(0)]
    known = {flag for option in command.params for flag in option.opts + option.secondary_opts}
    assert {word for word in rest if word.startswith("--")} <= known | {"--help"}


def test_commands_are_found_in_every_kind_of_block() -> None:
    page = (
        "text\n\n    flowprep show a#2  # it's a comment\n    cd docker\n    pip install .\n\n"
        "```sh\n$ flowprep verify \\\n  shards/\n```\n\n```python\nmake('no')\n```\n"
    )
    found = [(line.text, line.folder) for line in lines_of("page", page)]
    assert found == [
        ("flowprep verify shards/", "."),
        ("flowprep show 'a#2'", "."),
        ("cd docker", "."),
        ("pip install .", "docker"),
    ]


def test_no_page_is_without_its_commands() -> None:
    """Counted by a plain look for lines that begin with the commands."""
    typed = re.compile(
        r"^ {4}(?:flowprep|python -m|make|ray|torchrun|pip install) .*$", re.MULTILINE
    )
    plainly = {
        " ".join(m.split(" #")[0].split()) for p in PAGES for m in typed.findall(p.read_text())
    }
    assert len(plainly) > 20
    assert {text.replace("'", "") for text in plainly} <= {text.replace("'", "") for text in NAMES}


WRONG = {
    "flowprep extract --src videos/ --out shards/ --turbo": "No such option",
    "flowprep transcode videos/": "there is no command transcode",
    "flowprep extract --src nowhere/ --out shards/": "no such file or folder",
    "flowprep extract --src videos/ --out shards/ --rgb-codec x265": "x265 is not known",
    "flowprep verify videos/": "no flowprep dataset here",
    "python -m train.distill --shards shards/ --turbo": "--turbo",
    "python -m train.fly --shards shards/": "No module named 'train.fly'",
    "python tests/bench/stages.py --turbo": "['--turbo'] == []",
    "torchrun --nproc-per-node 8 -m train.distill -- --turbo": "--turbo",
    "pip install '.[turbo]'": "turbo",
    "make turbo": "turbo",
    "ray start --turbo": "No such option",
    "cd nowhere": "nowhere",
    "docker build --build-arg TURBO=1 docker/opencv-cuda": "TURBO",
    "conda install flowprep": "no rule",
}


@pytest.mark.parametrize(("text", "told"), WRONG.items())
def test_a_command_that_does_not_work_is_found(
    text: str, told: str, cli: Cli, sandbox: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = lines_of("page", f"    {text}\n")
    with pytest.raises((Exception, SystemExit)) as raised:
        rule_for(line)(line, cli)
    printed = capsys.readouterr()
    assert told in f"{raised.value} {printed.out} {printed.err}"
