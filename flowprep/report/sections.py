"""The parts of the page that tell numbers. Each takes what was counted and gives markup."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from flowprep.errors import ADVICE
from flowprep.report import numbers as say
from flowprep.report.charts import category_figure, histogram_figure, rank_figure, share_bar
from flowprep.report.dataset import Dataset, Failed
from flowprep.report.facts import MANY_SATURATED, STILL_PX, Classes, Facts, Split, Suspects
from flowprep.report.html import Content, Html, Number, element, name_of, table
from flowprep.report.samples import BLACK_LEVEL, BLACK_SHARE, Shown

SATURATION_BINS = ("none", "< 0.01", "< 0.1", "< 1", "< 10", "10 +")
SHOWN_SIDES = 12


def section(name: str, title: str, *contents: Content) -> Html:
    """A part that the list at the top leads to."""
    head = element("h2", title, id=f"{name}-title")
    return element("section", head, *contents, id=name, aria_labelledby=f"{name}-title")


def totals(dataset: Dataset, facts: Facts) -> Html:
    """The numbers that everybody asks for first."""
    size_bytes = facts.size_bytes if dataset.tar_bytes is None else dataset.tar_bytes
    cards: list[tuple[str, str, bool]] = [
        ("samples", say.count(facts.samples), False),
        ("failed clips", say.count(dataset.n_failures), dataset.n_failures > 0),
        ("frames", say.count(facts.frames), False),
        ("flows", say.count(facts.flows), False),
        ("flows of equal frames", say.percent(facts.identical / max(1, facts.flows)), False),
        ("duration", say.duration(facts.duration_s), False),
        ("size", say.size(size_bytes), False),
        ("bytes a frame", say.size(size_bytes / max(1, facts.frames)), False),
        ("splits", say.count(len(facts.splits)), False),
        ("classes", say.count(len(facts.classes.counts)), False),
    ]
    if dataset.planned is not None:
        cards.insert(0, ("planned clips", say.count(dataset.planned), False))
    return element("dl", [_card(*card) for card in cards], class_="totals")


def _card(name: str, value: str, is_alarm: bool) -> Html:
    inner = (element("dt", name), element("dd", value))
    return element("div", *inner, class_="alarm" if is_alarm else None)


def sizes(facts: Facts) -> Html:
    """Durations, frames, bytes and sides."""
    figures = [
        histogram_figure("Duration of a clip", facts.durations_s, say.duration),
        histogram_figure("Frames in a clip", facts.frame_counts, say.digits),
        histogram_figure("Size of a sample", facts.sizes_bytes, say.size),
    ]
    charts = element("div", figures, class_="charts")
    return section("sizes", "Durations and sizes", charts, _sides(facts))


def _sides(facts: Facts) -> Html:
    shown = facts.sides[:SHOWN_SIDES]
    rows = [[name, Number(say.count(n)), share_bar(n / max(1, facts.samples))] for name, n in shown]
    more = len(facts.sides) - len(shown)
    caption = f"The {len(shown)} most frequent of {len(facts.sides)} sizes" if more else "Sizes"
    return table(["width x height, px", "samples", "share"], rows, caption)


def flow(facts: Facts) -> Html:
    """How much moves, and how much of it is beyond the bound."""
    none = facts.saturated.counts[0] / max(1, facts.samples)
    figures = [
        histogram_figure("Mean flow of a clip", facts.flow_px, lambda px: f"{say.digits(px)} px"),
        category_figure(
            "Vectors of a clip beyond the bound, %",
            f"none in {say.percent(none)} of the samples",
            SATURATION_BINS,
            facts.saturated.counts,
        ),
    ]
    told = "Pixels per frame step at the stored size. What lies beyond the bound is stored as it."
    return section(
        "flow",
        "Flow",
        element("p", told, class_="note"),
        element("div", figures, class_="charts"),
    )


def splits(found: Sequence[Split]) -> Html:
    """A row each."""
    head = ["split", "samples", "classes", "frames", "duration", "size"]
    rows = [
        [
            name_of(one.name),
            *map(Number, (say.count(one.samples), say.count(one.classes), say.count(one.frames))),
            *map(Number, (say.duration(one.duration_s), say.size(one.size_bytes))),
        ]
        for one in found
    ]
    return section("splits", "Splits", table(head, rows, say.counted(len(found), "split")))


def classes(found: Classes, samples: int) -> Html:
    """Balance: the most frequent and the rarest by name, all of them as a curve."""
    if not len(found.counts):
        return section("classes", "Classes", element("p", "No labels.", class_="note"))
    n, few, many = len(found.counts), int(found.counts[-1]), int(found.counts[0])
    empty = int((found.counts == 0).sum())
    median = say.digits(float(np.median(found.counts)))
    told = f"largest {say.count(many)}, median {median}, smallest {say.count(few)}"
    told += f"; {say.count(empty)} without a sample" if empty else ""
    caption = "The most frequent" if found.bottom else f"All {n} classes"
    tables = [_class_table(caption, found.top, samples)]
    if found.bottom:
        between = f"The rarest; {say.count(found.n_between)} classes lie between"
        tables.append(_class_table(between, found.bottom, samples))
    curve = rank_figure("Samples of each class, logarithmic", told, found.counts)
    return section(
        "classes",
        "Classes",
        element("div", curve, class_="charts"),
        element("div", tables, class_="pair"),
    )


def _class_table(caption: str, rows: Sequence[tuple[str, int]], samples: int) -> Html:
    highest = max(1, *(n for _, n in rows))
    cells = [
        [
            name_of(name),
            Number(say.count(n)),
            Number(say.percent(n / max(1, samples))),
            share_bar(n / highest),
        ]
        for name, n in rows
    ]
    return table(["class", "samples", "share", ""], cells, caption)


def suspects(dataset: Dataset, facts: Facts, shown: Sequence[Shown]) -> Html:
    """Clips that a person should look at."""
    head = ["sample", "path", "mean flow, px", "saturated", "flows"]
    kinds = [
        (f"No motion: mean flow below {STILL_PX} px, or equal frames only", facts.still),
        (f"Saturated: more than {say.percent(MANY_SATURATED)} beyond the bound", facts.saturating),
    ]
    lists = [_suspect_list(dataset, what, found, head) for what, found in kinds]
    told = "Motion and saturation are those of the index, of all samples."
    return section(
        "suspects", "Suspects", element("p", told, class_="note"), lists, _black_list(shown)
    )


def _suspect_list(dataset: Dataset, what: str, found: Suspects, head: list[str]) -> Html:
    title = f"{what}: {say.counted(found.count, 'sample')}"
    if not found.count:
        return element("p", title)
    names = ["key", "path", "flow_mean_px", "flow_saturated_share", "n_flows"]
    columns = dataset.index.table(names, found.places).to_pydict()
    rows = [
        [
            name_of(key),
            name_of(path),
            Number(f"{mean_px:.2f}"),
            Number(say.percent(share)),
            Number(say.count(n_flows)),
        ]
        for key, path, mean_px, share, n_flows in zip(*columns.values(), strict=True)
    ]
    caption = f"The worst {len(rows)}" if found.count > len(rows) else "All of them"
    return _details(title, table(head, rows, caption))


def _black_list(shown: Sequence[Shown]) -> Html:
    """Of the samples on the page: the index does not tell of black frames."""
    seen = [one for one in shown if one.picture]
    rows = [
        [
            name_of(one.row.key),
            name_of(one.row.path),
            Number(f"{one.picture.n_black} of {one.picture.n_seen}"),
        ]
        for one in seen
        if one.picture and one.picture.n_black
    ]
    title = f"Black frames: in {len(rows)} of {say.counted(len(seen), 'sample')} shown above"
    told = (
        "The index does not tell of black frames: only frames that are on this page were looked "
        f"at. Black is what has {say.percent(BLACK_SHARE)} of its pixels below {BLACK_LEVEL} of "
        "255 in every channel."
    )
    note = element("p", told, class_="note")
    if not rows:
        return element("div", element("p", title), note)
    found = table(["sample", "path", "black frames"], rows, "Of the frames shown")
    return _details(title, [note, found])


def _details(title: str, content: Content) -> Html:
    return element("details", element("summary", title), content, open=True)


def failures(failed: Sequence[Failed], planned: int) -> Html:
    """By reason, with what to do about each."""
    if not failed:
        return section("failures", "Failures", element("p", "No clip failed."))
    head = ["reason", "clips", "share", "stage", "may pass when tried again", "what to do"]
    rows = [
        [
            name_of(one.reason),
            Number(say.count(one.count)),
            Number(say.percent(one.count / max(1, planned))),
            ", ".join(f"{stage} {say.count(n)}" for stage, n in one.stages.items()),
            "yes" if one.retriable else "not as it is",
            ADVICE.get(one.reason, "see its message"),
        ]
        for one in failed
    ]
    told = "Mend them and run the same command with --retry-failed; healthy samples are kept."
    return section(
        "failures",
        "Failures",
        element("p", told, class_="note"),
        table(head, rows, "Clips that could not be made, by reason"),
        [_examples(one) for one in failed],
    )


def _examples(one: Failed) -> Html:
    rows = [[name_of(path), name_of(message)] for path, message in one.examples]
    title = f"{one.reason}: {len(rows)} of {say.count(one.count)}"
    inner = table(["path", "message"], rows, "All are in _flowprep/failures.parquet")
    return element("details", element("summary", title), inner)


def settings(config: dict[str, Any]) -> Html:
    """How the dataset was made, as config.toml has it."""
    tables = [
        table(["name", "value"], rows, caption)
        for name, caption in (("settings", "Settings"), ("versions", "Versions of the first run"))
        if (rows := [[key, name_of(_value(value))] for key, value in _items(config, name)])
    ]
    if not tables:
        tables = [element("p", "config.toml does not read.", class_="doubt")]
    return section("settings", "How it was made", element("div", tables, class_="pair"))


def _items(config: dict[str, Any], name: str) -> list[tuple[str, Any]]:
    part = config.get(name)
    return list(part.items()) if isinstance(part, dict) else []


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
