"""HTML put together so that what comes from strangers cannot become markup."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from flowprep.records import printable

VOID = frozenset({"meta", "img", "input", "rect", "line", "path", "br"})
"""Elements without content. Those of SVG are closed as XML wants it, which HTML takes too."""


class Html(str):
    """Markup. Every other string is text, and is escaped where it is put into markup."""


class Number(str):
    """Text of a number, which a table puts at the right."""


Content = str | Iterable["Content"]


def markup(content: Content) -> Html:
    """Text escaped, control and direction characters shown as what they are; markup as it is."""
    if isinstance(content, Html):
        return content
    if isinstance(content, str):
        shown = content if content.isprintable() else printable(content)
        return Html(html.escape(shown, quote=True))
    return Html("".join(markup(part) for part in content))


def element(name: str, /, *contents: Content, **attributes: object) -> Html:
    """`<name attribute="...">contents</name>`. `class_` is class, `a_b` is a-b; None is left out,
    True has no value.
    """
    given = [(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items()]
    written = "".join(
        f" {key}"
        if value is True
        else f' {key}="{markup(value if isinstance(value, str) else str(value))}"'
        for key, value in given
        if value is not None and value is not False
    )
    if name in VOID:
        return Html(f"<{name}{written}/>")
    return Html(f"<{name}{written}>{markup(contents)}</{name}>")


def _value(value: object) -> Html:
    return markup(value if isinstance(value, str) else str(value))


def name_of(text: str, **attributes: object) -> Html:
    """A stranger's name: whatever its direction, it does not turn what is around it."""
    return element("bdi", text, class_="name", **attributes)


def table(head: Sequence[str], rows: Sequence[Sequence[Content]], caption: str) -> Html:
    """A table that scrolls within its own box. Columns of numbers are at the right."""
    first = rows[0] if rows else []
    kinds = ["number" if isinstance(cell, Number) else None for cell in first] or [None] * len(head)
    titles = zip(head, kinds, strict=True)
    top = [element("th", title, scope="col", class_=kind) for title, kind in titles]
    body = [
        element("tr", [element("td", c, class_=k) for c, k in zip(row, kinds, strict=True)])
        for row in rows
    ]
    inner = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", top)),
        element("tbody", body),
    )
    return element("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)
