"""Animated GIFs with a palette of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

from flowprep.records import U8

if TYPE_CHECKING:
    from av import VideoFrame
    from av.filter import Graph
    from av.filter.context import FilterContext

TICK = Fraction(1, 100)  # GIF counts hundredths of a second
LEAST_TICKS = 2  # players slow down what is faster


def write_gif(path: Path, pictures_HW3: Sequence[U8], interval_s: float) -> None:
    """Pictures of one size, uint8 RGB, one every `interval_s`, again and again."""
    import av

    ticks = max(LEAST_TICKS, round(interval_s / TICK))
    with av.open(f"file:{path}", "w", format="gif", options={"loop": "0"}) as container:
        stream = container.add_stream("gif", rate=Fraction(100, ticks))
        height, width = pictures_HW3[0].shape[:2]
        stream.width, stream.height, stream.pix_fmt = width, height, "pal8"
        stream.time_base = stream.codec_context.time_base = TICK
        for number, frame in enumerate(_with_palette(pictures_HW3)):
            frame.pts, frame.time_base = number * ticks, TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _with_palette(pictures_HW3: Sequence[U8]) -> list[VideoFrame]:
    """The pictures in the 256 colours that fit all of them best."""
    import av

    frames = [av.VideoFrame.from_ndarray(picture, format="rgb24") for picture in pictures_HW3]
    palette = _filtered("palettegen", "reserve_transparent=0", frames)
    return _filtered("paletteuse", "dither=bayer:bayer_scale=4", frames, palette)


def _filtered(name: str, options: str, *inputs: list[VideoFrame]) -> list[VideoFrame]:
    """All that comes out of one filter of FFmpeg."""
    from av.filter import Graph

    graph = Graph()
    used, sink = graph.add(name, options), graph.add("buffersink")
    sources = [_linked(graph, frames[0], used, number) for number, frames in enumerate(inputs)]
    used.link_to(sink)
    graph.configure()
    for source, frames in zip(sources, inputs, strict=True):
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, TICK
            source.push(frame)
        source.push(None)
    return list(_pulled(sink))


def _linked(graph: Graph, like: VideoFrame, used: FilterContext, number: int) -> FilterContext:
    source = graph.add_buffer(
        width=like.width, height=like.height, format=like.format, time_base=TICK
    )
    source.link_to(used, 0, number)
    return source


def _pulled(sink: FilterContext) -> Iterator[VideoFrame]:
    import av

    with suppress(av.EOFError):
        while True:
            yield cast("VideoFrame", sink.pull())
