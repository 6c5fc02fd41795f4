"""The lines of the pages that a reader would type."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHELLS = ("", "sh", "bash", "shell", "console")
"""Languages of fenced blocks that hold commands; others are left alone."""

NO_COMMANDS = (
    *("KEY.cls ", "train-000000.tar ..."),  # lists of files
    *("flow_px = ", "[project.entry-points"),
)
"""How blocks without a language begin that hold no commands. Or give such a block a language."""

COMMENT = re.compile(r"(^|\s)#.*$")


@dataclass(frozen=True)
class Line:
    """A command, as words, and where it stands."""

    page: str
    words: tuple[str, ...]
    folder: str = "."  # where a `cd` before it leads, from the root of the checkout

    @property
    def text(self) -> str:
        return shlex.join(self.words)


def lines() -> list[Line]:
    """Each command of the pages once, in order."""
    found = [line for page in PAGES for line in lines_of(page.name, page.read_text("utf-8"))]
    return list({(line.words, line.folder): line for line in reversed(found)}.values())[::-1]


def lines_of(page: str, text: str) -> Iterator[Line]:
    for block in blocks(text):
        folder = "."
        for command in block.replace("\\\n", " ").splitlines():
            words = _words(page, command)
            if not words:
                continue
            yield Line(page, words, folder)
            if words[0] == "cd":
                folder = words[1]


def _words(page: str, command: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(COMMENT.sub("", command.removeprefix("$ "))))
    except ValueError as error:
        what = "give the block a language, or name it in tests/docs/pages.py: NO_COMMANDS"
        raise ValueError(f"{page}: {command!r} is no command ({error}): {what}") from error


def blocks(text: str) -> Iterator[str]:
    """Fenced and indented blocks of commands."""
    fence = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
    found = [body for language, body in fence.findall(text) if language in SHELLS]
    indented = re.findall(r"(?:^    .*\n?)+", fence.sub("", text), re.MULTILINE)
    found += [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in indented]
    yield from (block for block in found if not block.startswith(NO_COMMANDS))


def mentions() -> list[Line]:
    """Commands of flowprep with options that stand in running text, complete or not."""
    spans = [(p.name, s) for p in PAGES for s in re.findall(r"`([^`\n]+)`", p.read_text("utf-8"))]
    return [
        Line(page, tuple(shlex.split(span)))
        for page, span in dict.fromkeys(spans)
        if span.startswith("flowprep ") and " --" in span
    ]
