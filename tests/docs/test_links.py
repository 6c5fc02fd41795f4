"""Links between the pages lead somewhere, and the index of the pages has them all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import PAGES, ROOT

LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Of its headings, as they are made of them: lower case, words joined by hyphens."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text("utf-8")):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_index_has_every_page_once() -> None:
    """A new page has a row in docs/README.md."""
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    listed = [link for link in LINK.findall(index) if "/" not in link]
    pages = [page.name for page in PAGES if page.parent.name == "docs"]
    assert sorted(listed) == sorted(set(pages) - {"README.md"})
