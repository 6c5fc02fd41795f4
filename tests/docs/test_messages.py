"""docs/troubleshooting.md quotes messages that the sources really have."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from flowprep.errors import REASONS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ENOUGH = 8
"""So many fixed letters tell a message from others."""


def sections() -> dict[str, str]:
    parts = re.split(r"^## (.*)$", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def first_cells(text: str) -> list[str]:
    """What stands in the first column of its tables."""
    return re.findall(r"^\| `(.*?)` \|", text, re.MULTILINE)


MESSAGES = [
    m for name, text in sections().items() if name != "Failed clips" for m in first_cells(text)
]


def patterns() -> list[re.Pattern[str]]:
    """Every text in the sources with enough fixed letters; what is filled in may be anything."""
    files = [*(ROOT / "flowprep").rglob("*.py"), *(ROOT / "train").rglob("*.py")]
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    return [p for tree in trees for node in ast.walk(tree) if (p := pattern(node))]


def pattern(node: ast.AST) -> re.Pattern[str] | None:
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    fixed = [p.value for p in parts if isinstance(p, ast.Constant) and isinstance(p.value, str)]
    if sum(map(len, fixed)) < ENOUGH:
        return None
    return re.compile(
        "".join(re.escape(p.value) if isinstance(p, ast.Constant) else ".+" for p in parts)
    )  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def known() -> list[re.Pattern[str]]:
    return patterns()


@pytest.mark.parametrize("message", MESSAGES)
def test_the_message_is_one_of_ours(known: list[re.Pattern[str]], message: str) -> None:
    assert any(one.fullmatch(message) for one in known)


@pytest.mark.parametrize("message", ["--out shards/ contains other files", "Ray has ended: no"])
def test_a_message_that_nobody_says_is_found(known: list[re.Pattern[str]], message: str) -> None:
    assert not any(one.fullmatch(message) for one in known)


def test_there_are_messages() -> None:
    assert len(MESSAGES) > 30
    assert len(re.findall(r"^\| [^m-]", PAGE, re.MULTILINE)) >= len(MESSAGES)


def test_every_reason_of_a_failure_is_explained_once() -> None:
    assert first_cells(sections()["Failed clips"]) == list(REASONS)
