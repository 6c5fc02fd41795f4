"""`flowprep show`: what the json of a sample says, or the sample as a contact sheet or playing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from flowprep.codec.base import get_codec
from flowprep.errors import ADVICE, FlowprepError
from flowprep.records import U8, printable
from flowprep.report.clip import Clip, open_clip
from flowprep.report.color import flow_to_rgb
from flowprep.report.dataset import failures_table, open_index, require_outside
from flowprep.report.find import place_of
from flowprep.report.gif import write_gif
from flowprep.report.picture import below, beside, framed, legend, png, resized, text
from flowprep.report.samples import fitting, longest_of, overview_frames
from flowprep.shard.columns import Index
from flowprep.shard.layout import Layout
from flowprep.shard.schema import SampleInfo
from flowprep.storage import Place, publish, scratch_folder, write_whole

COLUMNS = 4  # of the contact sheet
LEGEND, WHEEL = 210, 120  # width of a legend beside what plays, side of its wheel
GIF_FRAMES = 150
"""A longer clip loses frames in a GIF, evenly."""


def tell(out: Place, wanted: str) -> str:
    """The json of a sample. Raises FlowprepError when there is no such sample or it is damaged."""
    layout, index = open_index(out)
    with _opened(layout, index, wanted) as clip:
        return pretty(clip.info)


def draw(out: Place, wanted: str, to: Path, max_px: float | None) -> str:
    """Write the picture of a sample to `to`; what was written, in words.

    Raises FlowprepError when there is no such sample or it does not decode, or for another suffix.
    """
    if not (write := WRITERS.get(to.suffix.lower())):
        allowed = ", ".join(WRITERS)
        raise FlowprepError(f"--out {to}: unknown kind of picture", f"allowed: {allowed}")
    layout, index = open_index(out)
    require_outside(to, layout)
    with _opened(layout, index, wanted) as clip:
        note = write(to, clip, max_px or _longest_px(clip))
        return "\n".join([f"{to}: {clip.info.key}, {_about(clip.info)}", *([note] if note else [])])


@contextmanager
def _opened(layout: Layout, index: Index, wanted: str) -> Iterator[Clip]:
    ((shard, row),) = index.rows([_place(layout, index, wanted)])
    with _told(row.key):
        yield open_clip(layout, shard, row)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Damage as an error of the user's."""
    try:
        yield
    except ValueError as error:
        raise FlowprepError(f"{what}: {error}", "flowprep verify tells what is damaged") from error


def _place(layout: Layout, index: Index, wanted: str) -> int:
    """`place_of`, which knows samples; of clips that failed or are to come this says so."""
    try:
        return place_of(index, wanted)
    except FlowprepError as error:
        with _told(f"no sample {printable(wanted)!r}"):
            table = failures_table(layout.failures)
        named = pc.or_(pc.equal(table["key"], wanted), pc.equal(table["path"], wanted))
        for failure in table.filter(named).slice(0, 1).to_pylist():
            what = f"{wanted} failed: {failure['reason']}: {failure['message']}"
            raise FlowprepError(printable(what), ADVICE.get(failure["reason"], "")) from None
        if layout.dataset.exists():
            raise
        what = f"{error.message}, and the dataset is not finished"
        raise FlowprepError(what, f"run flowprep extract again, or {error.hint}") from None


def _longest_px(clip: Clip) -> float:
    """What nearly all vectors of the clip stay below, by some of its flows."""
    numbers = overview_frames(clip.info.n_flows)
    return longest_of(np.stack([uv for n in numbers for uv in clip.flows(n, n + 1)]))


def pretty(info: SampleInfo) -> str:
    """The fields of a sample's json, a line each; what does not print is escaped."""
    fields = asdict(info).items()
    lines = [f'  "{name}": {json.dumps(value, ensure_ascii=False)}' for name, value in fields]
    plain = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in ",\0".join(lines))
    return "{\n" + plain.replace(",\\u0000", ",\n") + "\n}"


def _write_sheet(to: Path, clip: Clip, longest_px: float) -> str:
    """A PNG: frames from all over the clip above their flow, in rows of COLUMNS."""
    shown = overview_frames(clip.info.n_flows)
    rows = [_band(clip, shown[i : i + COLUMNS], longest_px) for i in range(0, len(shown), COLUMNS)]
    body = beside([below(rows), legend(longest_px, UNIT, LEGEND)])
    titles = [text(line, body.shape[1]) for line in _titles(clip.info)]
    write_whole(to, png(framed(below([*titles, body]))), to.parent)
    return ""


UNIT = "px per frame step"


def _titles(info: SampleInfo) -> list[str]:
    label = f", {info.label}" if info.label else ""
    return [info.key, f"{info.path} ({info.split}{label})", _about(info)]


def _about(info: SampleInfo) -> str:
    about = f"{info.n_frames} frames of {info.width} x {info.height}"
    return f"{about}; mean flow {info.flow_mean_px:.2f} px, longest {info.flow_max_px:.2f} px"


def _band(clip: Clip, numbers: list[int], longest_px: float) -> U8:
    height, width = fitting(clip.info.height, clip.info.width)
    columns = []
    for number in numbers:
        (frame,), (uv,) = clip.frames(number, number + 1), clip.flows(number, number + 1)
        head = text(f"{number}: {clip.info.pts_s[number]:.2f} s", max(width, 110))
        pictures = (frame, flow_to_rgb(uv, longest_px))
        columns.append(below([head, *(resized(p, height, width, smooth=True) for p in pictures)]))
    return beside(columns)


def _playing(clip: Clip, longest_px: float, size: tuple[int, int], step: int = 1) -> Iterator[U8]:
    """Every `step`-th frame beside its flow, with a legend."""
    scale = legend(longest_px, UNIT, LEGEND, WHEEL)
    pairs = zip(clip.frames(0, clip.info.n_flows), clip.flows(), strict=True)
    for frame, uv in islice(pairs, 0, None, step):
        pictures = (frame, flow_to_rgb(uv, longest_px))
        panels = [resized(p, *size, smooth=True) for p in pictures]
        yield _even(beside([*panels, scale]))


def _even(picture_HW3: U8) -> U8:
    """Sides that every player takes."""
    height, width = picture_HW3.shape[:2]
    edges = ((0, height % 2), (0, width % 2), (0, 0))
    return np.pad(picture_HW3, edges, constant_values=255)


def _write_mp4(to: Path, clip: Clip, longest_px: float) -> str:
    """H.264 at the stored size, with the times of the frames."""
    times_s = np.asarray(clip.info.pts_s) - clip.info.pts_s[0]
    pictures = _playing(clip, longest_px, (clip.info.height, clip.info.width))
    first = next(pictures)
    with scratch_folder(to.parent, f".{to.name}") as scratch:
        path = scratch / "playing.mp4"
        with get_codec("x264", ["rgb"]).open_writer(path, *first.shape[:2]) as writer:
            writer.write(first[None], times_s[:1])
            for number, picture in enumerate(pictures, start=1):
                writer.write(picture[None], times_s[number : number + 1])
        publish(path, to)
    return ""


def _write_gif(to: Path, clip: Clip, longest_px: float) -> str:
    """At most GIF_FRAMES small pictures."""
    step = -(-clip.info.n_flows // GIF_FRAMES)
    size = fitting(clip.info.height, clip.info.width)
    pictures = list(_playing(clip, longest_px, size, step))
    with scratch_folder(to.parent, f".{to.name}") as scratch:
        write_gif(scratch / "playing.gif", pictures, clip.step_s * step)
        publish(scratch / "playing.gif", to)
    told = f"{to.name} has one frame of {step}, {len(pictures)} in all; an .mp4 has each"
    return told if step > 1 else ""


Write = Callable[[Path, Clip, float], str]
WRITERS: dict[str, Write] = {".png": _write_sheet, ".gif": _write_gif, ".mp4": _write_mp4}
