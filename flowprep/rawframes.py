"""How tools before this one laid out a video as a folder of images: names, numbers, pairs, codes.

Sources in docs/inout.md. RGB image and flow images of one number need not mean the same frame:

| style | RGB images of N frames | flow image k leads |
|---|---|---|
| denseflow | N, from 0 | from RGB image k to k + 1 |
| tsn | N - 1, from 1: the first frame is not saved | from RGB image k - 1 to k |
| mars | N, from 1 | from RGB image k to k + 1 |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from flowprep.errors import FlowprepError

AXES = ("x", "y")


@dataclass(frozen=True, kw_only=True)
class Style:
    """One layout. The names are without their suffix."""

    name: str
    rgb: str  # takes the number
    flow: str  # takes the axis and the number
    first: int  # number of the first image, RGB and flow
    saves_first_frame: bool
    flow_map: str  # how the tool turned flow into codes, at `bound_px`
    bound_px: float = 20.0

    @property
    def n_unsaved(self) -> int:
        """Frames of a video that come before its first RGB image."""
        return 0 if self.saves_first_frame else 1

    def flow_of_pair(self, index: int) -> int:
        """Number of the flow image that leads from RGB image `index`, counted from 0, to the next.

        Where the first frame is not saved, nothing can be done with the first flow image.
        """
        return self.first + index + self.n_unsaved

    def rgb_name(self, number: int) -> str:
        return self.rgb.format(number)

    def flow_name(self, axis: str, number: int) -> str:
        return self.flow.format(axis, number)


STYLES = {
    style.name: style
    for style in (
        Style(
            name="denseflow",
            rgb="img_{:05d}",
            flow="flow_{}_{:05d}",
            first=0,
            saves_first_frame=True,
            flow_map="i3d",
        ),
        Style(
            name="tsn",
            rgb="img_{:05d}",
            flow="flow_{}_{:05d}",
            first=1,
            saves_first_frame=False,
            flow_map="i3d",
        ),
        Style(
            name="mars",
            rgb="{:05d}",
            flow="TVL1jpg_{}_{:05d}",
            first=1,
            saves_first_frame=True,
            flow_map="i3d-floor",
        ),
    )
}


class Line(NamedTuple):
    """A video of an annotation list."""

    folder: str
    label: int  # -1 = none


def parse_list(text: str, name: str) -> list[Line]:
    """The lines `folder images label` of a list, as mmaction2 and TSN have them.

    Raises FlowprepError naming the line that is none.
    """
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.rsplit(maxsplit=2)
        if not words:
            continue
        try:
            folder, _, label = words[0], int(words[1]), int(words[2])
        except (ValueError, IndexError):
            raise FlowprepError(
                f"{name}, line {number}: {line!r} is not a folder, a count and a label",
                "one label for each video; lists with offsets are not read",
            ) from None
        found.append(Line(folder, label))
    return found


def get_style(name: str) -> Style:
    """The style called `name`. Raises FlowprepError when there is none."""
    if name not in STYLES:
        raise FlowprepError(f"unknown style {name!r}", f"allowed: {', '.join(STYLES)}")
    return STYLES[name]
