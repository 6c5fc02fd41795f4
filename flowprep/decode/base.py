"""The decoder contract, its limits, and the registry of decoders by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

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


@runtime_checkable
class BringsFlow(Protocol):
    """What a decoder may have besides: a source that holds the flow as well."""

    def flow_codes(self, path: str, media: Media, source_index: I64) -> Iterator[U8]:
        """The codes uint8 [2H, W], dx above dy, of each pair of successive frames.

        Raises ClipError as `frames` does, ValueError when the frames are not successive.
        """
        ...


DECODERS = {
    "pyav": "flowprep.decode.pyav:PyAVDecoder",
    "rawframes": "flowprep.decode.rawframes:RawFramesDecoder",
}


def get_decoder(
    name: str = "pyav", *, threads: int = 1, limits: Limits | None = None, **options: Any
) -> Decoder:
    """The decoder called `name`; `rawframes` takes `style` and `fps`."""
    module, _, attribute = DECODERS[name].partition(":")
    decoder: Decoder = getattr(import_module(module), attribute)(
        threads=threads, limits=limits or Limits(), **options
    )
    return decoder


def flow_of_source(
    decoder: Decoder, path: str, media: Media, source_index: I64
) -> Iterator[U8] | None:
    """The codes uint8 [2H, W] of each pair, where the source holds them; None where it does not."""
    if not isinstance(decoder, BringsFlow):
        return None
    return decoder.flow_codes(path, media, source_index)
