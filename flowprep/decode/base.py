"""The decoder contract, its limits, and the registry of decoders by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

from flowprep.records import I64, U8, Media


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a file may claim before it is refused as `too-large`."""

    max_pixels: int = 8192 * 8192
    max_side: int = 16384
    max_frames: int = 5_000_000
    max_duration_s: float = 7 * 24 * 3600.0


class Decoder(Protocol):
    """Reads local bytes only: no playlist, no network, no file named inside the video."""

    name: str
    build: str

    def probe(self, path: str) -> Media:
        """List the frames of a video. Raises ClipError with the reason it cannot be used."""
        ...

    def frames(self, path: str, media: Media, source_index: I64) -> Iterator[U8]:
        """The frames `source_index` (ascending) as uint8 [H, W, 3], full size, rotated, RGB.

        Seeks where the container allows it. Raises ClipError `frames-missing` or `truncated` when
        the file does not give all of them, `decode-error` when the decoder refuses the data.
        """
        ...


DECODERS = {"pyav": "flowprep.decode.pyav:PyAVDecoder"}


def get_decoder(name: str = "pyav", *, threads: int = 1, limits: Limits | None = None) -> Decoder:
    """The decoder called `name`."""
    module, _, attribute = DECODERS[name].partition(":")
    decoder: Decoder = getattr(import_module(module), attribute)(
        threads=threads, limits=limits or Limits()
    )
    return decoder
