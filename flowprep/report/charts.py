"""Charts as SVG within the page; their colours are the page's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from flowprep.records import I64
from flowprep.report.facts import Histogram
from flowprep.report.html import Html, element
from flowprep.report.numbers import compact, count

WIDTH, HEIGHT = 360, 170
LEFT, RIGHT, TOP, BOTTOM = 48, 352, 12, 146  # of the plot
N_TICKS, N_RANKS = 4, 300


def histogram_figure(
    title: str, values: Histogram, say: Callable[[float], str], what: str = "samples"
) -> Html:
    """Bars over an axis that starts at 0. `say` writes a value with its unit."""
    steps = len(values.edges) - 1
    ends = [f"{say(a)} to {say(b)}" for a, b in zip(values.edges, values.edges[1:], strict=False)]
    ticks = [
        (LEFT + (RIGHT - LEFT) * i / N_TICKS, say(values.edges[round(i * steps / N_TICKS)]))
        for i in range(N_TICKS + 1)
    ]
    if values.is_open:
        ends[-1] = f"{say(values.edges[-2])} or more"
        ticks[-1] = (ticks[-1][0], f"{ticks[-1][1]} +")
    return _figure(title, f"median {say(values.median)}", _bars(values.counts, ends, ticks, what))


def category_figure(title: str, note: str, names: Sequence[str], counts: Sequence[int]) -> Html:
    """A bar for each name."""
    width = (RIGHT - LEFT) / len(names)
    ticks = [(LEFT + width * (i + 0.5), name) for i, name in enumerate(names)]
    return _figure(title, note, _bars(counts, names, ticks, "samples"))


def rank_figure(title: str, note: str, counts: I64) -> Html:
    """The counts from the largest to the smallest, their logarithms upwards."""
    at = np.unique(np.linspace(0, len(counts) - 1, N_RANKS).round().astype(np.int64))
    highest = max(1, int(counts[0]))
    x = LEFT + (RIGHT - LEFT) * at / max(1, len(counts) - 1)
    y = BOTTOM - (BOTTOM - TOP) * np.log1p(counts[at]) / np.log1p(highest)
    points = " ".join(f"L{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))
    area = element("path", d=f"M{LEFT} {BOTTOM} {points} L{RIGHT} {BOTTOM} Z", class_="area")
    ticks = [(float(LEFT), "1st"), (float(RIGHT), f"{count(len(counts))}th")]
    return _figure(title, note, [area, *_axes(highest, ticks)], f"{title}: {note}")


def share_bar(share: float) -> Html:
    """A bar that fills this share of its cell."""
    width = f"{100 * min(1.0, max(0.0, share)):.2f}"
    bar = element("rect", class_="bar", width=width, height=10, rx=1)
    return element(
        "svg",
        bar,
        class_="share",
        viewBox="0 0 100 10",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def _figure(title: str, note: str, parts: Sequence[Html], said: str = "") -> Html:
    caption = element("figcaption", element("strong", title), note)
    box = f"0 0 {WIDTH} {HEIGHT}"
    drawn = element("svg", parts, viewBox=box, role="img", aria_label=said or f"{title}, {note}")
    return element("figure", caption, drawn)


def _bars(
    counts: Sequence[int], names: Sequence[str], ticks: Sequence[tuple[float, str]], what: str
) -> list[Html]:
    highest, width = max(1, *counts), (RIGHT - LEFT) / len(counts)
    bars = []
    for i, (n, name) in enumerate(zip(counts, names, strict=True)):
        height = (BOTTOM - TOP) * n / highest
        height = max(height, 1.0) if n else 0.0
        told = element("title", f"{name}: {count(n)} {what}")
        bars.append(
            element(
                "g",
                told,
                element(
                    "rect",
                    class_="bar",
                    x=f"{LEFT + i * width + 0.5:.2f}",
                    y=f"{BOTTOM - height:.2f}",
                    width=f"{width - 1:.2f}",
                    height=f"{height:.2f}",
                ),
            )
        )
    return [*bars, *_axes(highest, ticks)]


def _axes(highest: int, ticks: Sequence[tuple[float, str]]) -> list[Html]:
    base = element("line", x1=LEFT, x2=RIGHT, y1=BOTTOM, y2=BOTTOM, class_="axis")
    labels = [
        element("text", label, x=f"{x:.1f}", y=BOTTOM + 16, text_anchor=_anchor(x))
        for x, label in ticks
    ]
    top = element("text", compact(highest), x=LEFT - 6, y=TOP + 4, text_anchor="end")
    zero = element("text", "0", x=LEFT - 6, y=BOTTOM + 4, text_anchor="end")
    return [base, top, zero, *labels]


def _anchor(x: float) -> str:
    return "end" if x > RIGHT - 1 else "middle"
