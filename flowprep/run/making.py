"""Clips of a job -> the members of their samples: the stages, each in a thread of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowprep.codec.base import Codec, Kind, get_codec
from flowprep.config import Settings
from flowprep.decode.base import Decoder, get_decoder
from flowprep.flow.base import Engine, get_engine, uses_gpu
from flowprep.quantize import Quantizer, make_quantizer
from flowprep.run.encode import Encoded, SampleBuilder, encode_stage
from flowprep.run.overlap import Background, StageClock
from flowprep.run.reporting import Reporter
from flowprep.run.stages import Broken, Chunk, ClipTask, Event, decode_stage, flow_stage

if TYPE_CHECKING:
    from flowprep.run.job import ShardJob

QUEUE_DEPTH = 2
GPU_QUEUE_DEPTH = 32  # chunks: decoding goes on while a batch is on the device


@dataclass(frozen=True, kw_only=True)
class Tools:
    """The swappable parts, made once per worker: engines keep work space and compiled code."""

    decoder: Decoder
    engine: Engine
    rgb_codec: Codec
    flow_codec: Codec
    quantizer: Quantizer


def make_tools(
    settings: Settings,
    *,
    device: int | None = None,
    threads: int = 1,
    engine_options: dict[str, Any] | None = None,
) -> Tools:
    """The parts `settings` names. Raises FlowprepError when one is not there."""
    quantizer = make_quantizer(settings.flow_map, settings.bound_px)
    flow_kind: Kind = "flow16" if quantizer.highest > 255 else "flow8"
    options = {**settings.engine_params, **(engine_options or {})}
    engine = get_engine(settings.engine, device=device, threads=threads, **options)
    return Tools(
        decoder=get_decoder(**settings.decoder, threads=threads),
        engine=engine,
        rgb_codec=get_codec(settings.rgb_codec, ["rgb"]),
        flow_codec=get_codec(settings.flow_codec, [flow_kind]),
        quantizer=quantizer,
    )


@dataclass(frozen=True, kw_only=True)
class Maker:
    """Makes clips of a job, with files below `scratch`."""

    job: ShardJob
    tools: Tools
    scratch: Path
    clock: StageClock
    reporter: Reporter

    def make(self, tasks: Iterable[ClipTask]) -> Iterator[Encoded | Broken]:
        """One for each task, in order; the files of one are there until the next is asked for."""
        job, tools, clock, alive = self.job, self.tools, self.clock, self.reporter.alive
        depth = GPU_QUEUE_DEPTH if uses_gpu(tools.engine.name) else QUEUE_DEPTH
        begun = self.reporter.begin(tasks)
        decoding = decode_stage(begun, job.root, job.settings, tools.decoder, clock)
        decoded = Background(alive(decoding), depth)
        flowing = flow_stage(decoded, tools.engine, tools.quantizer, clock)
        flowed = Background(alive(flowing), depth)
        return encode_stage(
            self._counted(flowed),
            lambda first: SampleBuilder(job, tools, first, self.scratch),
            clock,
        )

    def _counted(self, events: Iterable[Event]) -> Iterator[Event]:
        for event in events:
            if isinstance(event, Chunk) and event.flow is not None:
                computed = len(event.flow) - event.identical
                self.reporter.add(flows=computed, identical=event.identical)
            yield event
