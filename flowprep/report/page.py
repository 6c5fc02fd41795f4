"""`flowprep report`: one page that needs no other file and loads none."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from flowprep import __version__
from flowprep.errors import FlowprepError
from flowprep.report import numbers as say
from flowprep.report import sections
from flowprep.report.cards import samples
from flowprep.report.dataset import Dataset, open_dataset, require_outside
from flowprep.report.facts import Facts, count_facts
from flowprep.report.find import place_of
from flowprep.report.html import Html, element, name_of
from flowprep.report.picture import png, wheel
from flowprep.report.samples import MAX_SAMPLES, Shown, choose, draw_all
from flowprep.report.throughput import throughput
from flowprep.storage import Place, write_whole

WHEEL_PX = 128
PARTS = ("samples", "sizes", "flow", "classes", "splits", "suspects", "failures", "throughput")


def write_report(out: Place, to: Path, *, n_samples: int, seed: int, keys: Sequence[str]) -> int:
    """Write the page; returns its bytes.

    Raises FlowprepError when there is no dataset that reads, or a key that is unknown.
    """
    dataset = open_dataset(out)
    require_outside(to, dataset.layout)
    if len(keys) + n_samples > MAX_SAMPLES:
        raise FlowprepError(
            f"{len(keys)} samples by --key and --samples {n_samples} are too many for a page",
            f"give at most {MAX_SAMPLES} in all",
        )
    chosen = [place_of(dataset.index, key) for key in keys]
    facts = count_facts(dataset.index, dataset.class_names)
    shown = draw_all(dataset, choose(dataset.index.n_rows, n_samples, seed, chosen))
    page = document(dataset, facts, shown, seed).encode()
    write_whole(to, page, to.parent)
    return len(page)


def document(dataset: Dataset, facts: Facts, shown: Sequence[Shown], seed: int) -> str:
    """The whole page."""
    name = dataset.layout.out.name
    planned = facts.samples + dataset.n_failures
    main = element(
        "main",
        sections.totals(dataset, facts),
        samples(shown, seed),
        sections.sizes(facts),
        sections.flow(facts),
        sections.classes(facts.classes, facts.samples),
        sections.splits(facts.splits),
        sections.suspects(dataset, facts, shown),
        sections.failures(dataset.failed, planned),
        throughput(dataset.runs, dataset.damaged_runs),
        sections.settings(dataset.config),
    )
    script = Html(files("flowprep.report").joinpath("page.js").read_text(encoding="utf-8"))
    body = element("body", _header(dataset, facts), main, _footer(), element("script", script),
                   class_="no-script")  # fmt: skip
    whole = element("html", _head(name, _style(), script), body, lang="en")
    return f"<!DOCTYPE html>\n{whole}\n"


def _style() -> Html:
    picture = b64encode(png(wheel(WHEEL_PX))).decode()
    css = files("flowprep.report").joinpath("page.css").read_text(encoding="utf-8")
    return Html(f":root {{ --wheel: url(data:image/png;base64,{picture}); }}\n{css}")


def _head(name: str, style: Html, script: Html) -> Html:
    """Nothing but what is on the page may run, style it or be loaded."""
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", f"{name}: flowprep report"),
        element("style", style),
    )


def _hash(text: str) -> str:
    digest = b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _header(dataset: Dataset, facts: Facts) -> Html:
    lead = (
        f"RGB and TV-L1 optical flow of {say.count(facts.samples)} clips, "
        f"{say.duration(facts.duration_s)} of video"
    )
    links = [element("a", part.capitalize(), href=f"#{part}") for part in PARTS]
    doubts = [element("p", doubt, class_="doubt") for doubt in dataset.doubts]
    title = element("h1", name_of(dataset.layout.out.name))
    return element(
        "header", title, element("p", lead, class_="lead"), doubts, element("nav", links)
    )


def _footer() -> Html:
    return element("footer", f"Made by flowprep {__version__}. This page loads nothing.")
