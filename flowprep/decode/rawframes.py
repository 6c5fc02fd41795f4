"""The decoder of folders of images: a video that another tool has taken apart, with its flow."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from flowprep.decode.base import Limits
from flowprep.decode.images import image_size, read_bytes, read_image
from flowprep.decode.opening import check_size
from flowprep.errors import ClipError
from flowprep.rawframes import AXES, Style, get_style
from flowprep.records import I64, U8, Media

SUFFIXES = r"\.(?:jpg|jpeg|png)"
FIRST_BYTES_PIXELS = 1 << 26
"""The first image may have so many pixels, as far as its bytes go, before its size is known."""


class Listing:
    """The images of one folder, by number. Raises ClipError `frames-missing` unless all are there.

    Counts and pairs are those of the style: docs/inout.md.
    """

    def __init__(self, folder: Path, style: Style) -> None:
        self.folder, self.style = folder, style
        names = _names(folder)
        self.rgb = self._numbered(names, style.rgb)
        self.flow = [self._numbered(names, style.flow.replace("{}", axis, 1)) for axis in AXES]
        self._check()

    def _numbered(self, names: list[str], template: str) -> dict[int, str]:
        prefix = template[: template.index("{")]
        pattern = re.compile(f"({re.escape(prefix)}([0-9]{{5,18}})){SUFFIXES}", re.IGNORECASE)
        found: dict[int, str] = {}
        for match in filter(None, map(pattern.fullmatch, names)):
            number = int(match[2])
            if match[1] != template.format(number):
                continue
            if number in found:
                raise self._missing(f"{found[number]} and {match[0]} have one number")
            found[number] = match[0]
        return found

    def _missing(self, what: str) -> ClipError:
        return ClipError("frames-missing", f"{self.folder}: {what}")

    def _check(self) -> None:
        style, n_rgb = self.style, len(self.rgb)
        if not n_rgb:
            wanted = f"{style.rgb_name(style.first)}.jpg, {style.flow_name('x', style.first)}.jpg"
            raise self._missing(f"no RGB image as style {style.name} calls them ({wanted}, ...)")
        n_flows = n_rgb - 1 + style.n_unsaved
        self._check_numbers(self.rgb, n_rgb, style.rgb)
        for axis, found in zip(AXES, self.flow, strict=True):
            if len(found) != n_flows:
                raise self._missing(
                    f"{n_rgb} RGB images and {len(found)} flow images of {axis}, "
                    f"style {style.name} has {n_flows}"
                )
            self._check_numbers(found, n_flows, style.flow.replace("{}", axis, 1))

    def _check_numbers(self, found: dict[int, str], n_wanted: int, template: str) -> None:
        for number in range(self.style.first, self.style.first + n_wanted):
            if number not in found:
                last = template.format(max(found))
                what = f"{template.format(number)} is missing, {last} is there"
                raise self._missing(f"{what} ({n_wanted} images)")


def _names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(folder) if entry.is_file()]
    except FileNotFoundError as error:
        raise ClipError("missing", f"{folder} is gone") from error
    except OSError as error:
        raise ClipError("unreadable", f"{folder}: {error.strerror}") from error


class RawFramesDecoder:
    """Reads RGB images, and the flow images between them. Frame 0 is the first RGB image."""

    name = "rawframes"
    corrupt_frames = 0

    def __init__(
        self, *, style: str, fps: float, threads: int = 1, limits: Limits | None = None
    ) -> None:
        import cv2

        self.style = get_style(style)
        self.limits = limits or Limits()
        self.build = f"OpenCV {cv2.__version__}"
        self._frame_s = 1 / Fraction(fps).limit_denominator(1001)

    def probe(self, path: str) -> Media:
        """The images of a folder: all there, and the first of a size that may be."""
        listing = Listing(Path(path), self.style)
        n_frames, name = len(listing.rgb), listing.rgb[self.style.first]
        if n_frames > self.limits.max_frames:
            raise ClipError("too-large", f"{path} holds {n_frames:,} images")
        first = Path(path) / name
        width, height = image_size(read_bytes(first, FIRST_BYTES_PIXELS), first)
        check_size(str(first), width, height, self.limits)
        return Media(
            container="rawframes",
            codec="png" if name.lower().endswith("png") else "jpeg",
            pix_fmt="rgb24",
            width=width,
            height=height,
            rotation_deg=0,
            sar=Fraction(1),
            transfer="",
            time_base=self._frame_s,
            pts=np.arange(n_frames, dtype=np.int64),
            end_pts=n_frames,
        )

    def frames(self, path: str, media: Media, source_index: I64) -> Iterator[U8]:
        """The RGB images `source_index`, counted from 0, as uint8 [H, W, 3]."""
        listing = Listing(Path(path), self.style)
        for index in source_index.tolist():
            name = listing.rgb.get(self.style.first + index)
            yield self._image(listing, name, media, gray=False)

    def flow_codes(self, path: str, media: Media, source_index: I64) -> Iterator[U8]:
        """The flow images, x above y, that lead from each of these frames to the next."""
        if not (np.diff(source_index) == 1).all():
            raise ValueError("there is flow only between successive frames")
        listing = Listing(Path(path), self.style)
        for index in source_index[:-1].tolist():
            names = [found.get(self.style.flow_of_pair(index)) for found in listing.flow]
            yield np.concatenate([self._image(listing, n, media, gray=True) for n in names])

    def _image(self, listing: Listing, name: str | None, media: Media, *, gray: bool) -> U8:
        if name is None:
            raise ClipError("changed", f"{listing.folder} holds fewer images than when probed")
        return read_image(listing.folder / name, (media.width, media.height), gray=gray)
