"""The part of the page that shows samples."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence

from flowprep.report import numbers as say
from flowprep.report.html import Html, element, name_of
from flowprep.report.samples import Picture, Sheet, Shown
from flowprep.report.sections import section


def samples(shown: Sequence[Shown], seed: int) -> Html:
    """A card each."""
    if not shown:
        return section("samples", "Samples", element("p", "There is none to show.", class_="note"))
    told = (
        f"Chosen by chance (seed {seed}) or by name. RGB and flow play in step; below are frames "
        "from the first to the last, above their flow. Hue is the direction, as in the wheel: red "
        "is to the right; saturation is the length, white is no motion."
    )
    tools = element(
        "div", element("button", "Pause all", id="all", type="button"), class_="bar-of-tools"
    )
    cards = element("div", [_card(one) for one in shown], class_="samples")
    return section("samples", "Samples", element("p", told, class_="note"), tools, cards)


def _card(one: Shown) -> Html:
    row = one.row
    title = element("h3", name_of(row.key))
    label = [name_of(row.label), ", "] if row.label else []
    facts = f", {say.count(row.n_frames)} frames, {say.duration(max(0.0, row.end_s - row.start_s))}"
    motion = f", {row.width} x {row.height}, mean flow {row.flow_mean_px:.2f} px; "
    about = element(
        "p", label, name_of(row.split), facts, motion, name_of(row.path), class_="about"
    )
    if one.picture is None:
        told = element("p", "It does not read: ", one.problem, class_="doubt")
        return element("article", title, about, told, class_="sample")
    return element("article", title, about, *_pictures(one.picture), class_="sample")


def _pictures(picture: Picture) -> list[Html]:
    info, frames = picture.info, picture.overview_frames
    said = f"of {info.key}" + (f", class {info.label}" if info.label else "")
    alt = f"Frames {', '.join(map(str, frames))} {said}, above their flow in colour"
    strip = _image(picture.overview, alt, loading="eager")
    scroll = element(
        "div", strip, class_="overview", tabindex="0", role="region", aria_label="Frames above flow"
    )
    scale = element(
        "div",
        element("div", class_="wheel", role="img", aria_label="Wheel of directions"),
        element("span", f"full colour: {say.digits(picture.longest_px)} px a frame step or longer"),
        class_="scale",
    )
    return [_player(picture, said), scale, scroll]


def _player(picture: Picture, said: str) -> Html:
    sheet, frames = picture.played, picture.played_frames
    size = {"width": sheet.width, "height": sheet.height, "role": "img"}
    panels = element(
        "div",
        element("canvas", **size, aria_label=f"RGB {said}, playing"),
        element("canvas", **size, aria_label=f"Flow {said}, playing"),
        class_="panels",
    )
    slider = element(
        "input", type="range", min=0, max=sheet.n - 1, value=0, step=1, aria_label=f"Frame {said}"
    )
    controls = element(
        "div",
        element("button", "Play", type="button"),
        slider,
        element("output", f"frame {frames[0]}"),
        class_="controls",
    )
    return element(
        "div",
        _image(sheet, "", hidden=True),
        panels,
        controls,
        class_="player",
        data_n=sheet.n,
        data_first=frames[0],
        data_step=frames.step,
        data_ms=f"{1000 * min(1.0, max(0.02, picture.interval_s)):.1f}",
        data_cell_width=sheet.cell_width,
        data_cell_height=sheet.cell_height,
    )


def _image(sheet: Sheet, alt: str, **attributes: object) -> Html:
    source = Html(f"data:image/jpeg;base64,{b64encode(sheet.jpeg).decode()}")
    width, height = sheet.n * sheet.cell_width, 2 * sheet.cell_height
    return element("img", src=source, alt=alt, width=width, height=height, **attributes)
