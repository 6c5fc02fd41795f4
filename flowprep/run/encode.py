"""Chunks of one clip -> the members of its sample."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flowprep import __version__
from flowprep.codec.base import Codec, FrameWriter
from flowprep.errors import ClipError, reason_of
from flowprep.records import F64, CodedFlow, Media
from flowprep.run.overlap import StageClock
from flowprep.run.stages import Broken, Chunk, ClipTask, Event
from flowprep.shard.schema import SampleInfo

if TYPE_CHECKING:
    from flowprep.run.job import ShardJob
    from flowprep.run.making import Tools


class FlowStats:
    """Running totals over the flow of a clip, the same however it is cut into chunks."""

    def __init__(self) -> None:
        self.n_vectors = self.n_beyond = 0
        self.sum_px = self.max_px = 0.0

    def add(self, flow: CodedFlow) -> None:
        self.n_vectors += flow.codes.size // 2
        for sum_px in flow.sum_px.tolist():
            self.sum_px += sum_px
        self.max_px = max([self.max_px, *flow.max_px.tolist()])
        self.n_beyond += int(flow.n_beyond.sum())

    @property
    def mean_px(self) -> float:
        return round(self.sum_px / max(1, self.n_vectors), 6)

    @property
    def saturated_share(self) -> float:
        """Share of pixels with dx or dy beyond the bound."""
        return round(self.n_beyond / max(1, self.n_vectors), 9)


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A finished clip: its members in order, bytes or files, and its json record."""

    task: ClipTask
    members: dict[str, bytes | Path]
    info: SampleInfo


def encode_stage(
    events: Iterable[Event], start: Callable[[Chunk], SampleBuilder], clock: StageClock
) -> Iterator[Encoded | Broken]:
    """One Encoded or Broken for each clip, in order.

    The files of an Encoded are overwritten when the next one is asked for. OSError (a full disk)
    ends the job; anything else a codec raises costs this clip only.
    """
    builder: SampleBuilder | None = None
    broken: ClipTask | None = None
    for event in events:
        result: Encoded | Broken | None = None
        if isinstance(event, Broken):
            result = event
        elif event.task is not broken:
            try:
                builder = start(event) if event.is_first or builder is None else builder
                builder.add(event, clock)
                result = builder.finish(clock) if event.is_last else None
            except OSError:
                builder.abort() if builder else None
                raise
            except Exception as error:  # noqa: BLE001 - see above
                reason = reason_of(error, "encode-error")
                broken_by = ClipError(reason, f"{type(error).__name__}: {error}")
                result = Broken(task=event.task, stage="encode", error=broken_by)
        if isinstance(result, Broken):
            broken = result.task
            builder.abort() if builder else None
        if result is not None:
            builder = None
            yield result


class SampleBuilder:
    """Encodes one clip, chunk by chunk, into files below `scratch`."""

    def __init__(self, job: ShardJob, tools: Tools, first: Chunk, scratch: Path) -> None:
        self._job, self._tools, self._task = job, tools, first.task
        self.height, self.width = first.gray.shape[1:]
        self._pts_s: list[F64] = []
        self._corrupt = self._identical = self._n_flows = 0
        self._stats = FlowStats()
        self._exit = contextlib.ExitStack()
        self._rgb_path = scratch / f"rgb.{tools.rgb_codec.suffix}"
        self._flow_path = scratch / f"flow.{tools.flow_codec.suffix}"
        self._rgb = self._open(tools.rgb_codec, self._rgb_path, self.height)
        self._flow = self._open(tools.flow_codec, self._flow_path, 2 * self.height)

    def _open(self, codec: Codec, path: Path, height: int) -> FrameWriter:
        return self._exit.enter_context(codec.open_writer(path, height, self.width))

    def add(self, chunk: Chunk, clock: StageClock) -> None:
        """Encode the frames and the flow of a chunk."""
        assert chunk.flow is not None
        first = self._pts_s[0][0] if self._pts_s else chunk.frames.pts_s[0]
        times = chunk.frames.pts_s - first
        pair_times = self._pair_times(times)
        self._pts_s.append(chunk.frames.pts_s)
        self._corrupt = chunk.corrupt_frames
        self._identical += chunk.identical
        self._n_flows += len(chunk.flow)
        with clock.stage("encode rgb"):
            self._rgb.write(chunk.frames.rgb, times)
        with clock.stage("quantize"):
            flow = chunk.flow
            coded = flow if isinstance(flow, CodedFlow) else self._tools.quantizer.coded(flow.uv)
            self._stats.add(coded)
        with clock.stage("encode flow"):
            self._flow.write(coded.codes, pair_times)

    def _pair_times(self, times: F64) -> F64:
        """The time of the first frame of each pair that ends in this chunk."""
        if not self._pts_s:
            return times[:-1]
        before = self._pts_s[-1][-1] - self._pts_s[0][0]
        return np.concatenate([[before], times[:-1]])

    def finish(self, clock: StageClock) -> Encoded:
        """Complete the files."""
        with clock.stage("encode rgb"):
            self._exit.close()
        info = self._info()
        members: dict[str, bytes | Path] = {}
        if info.label_index >= 0:
            members["cls"] = str(info.label_index).encode()
        members[info.flow_member] = self._flow_path
        members["json"] = info.to_json()
        members[info.rgb_member] = self._rgb_path
        return Encoded(task=self._task, members=members, info=info)

    def abort(self) -> None:
        """Let go of everything; the files go with the scratch folder."""
        with contextlib.suppress(Exception):
            self._exit.__exit__(RuntimeError, RuntimeError("aborted"), None)

    def _info(self) -> SampleInfo:
        job, tools, clip = self._job, self._tools, self._task.clip
        pts_s = np.concatenate(self._pts_s)
        settings = job.settings
        if self._n_flows != len(pts_s) - 1 or len(pts_s) != clip.n_frames:
            raise AssertionError(
                f"{clip.key}: {len(pts_s)} of {clip.n_frames} frames, {self._n_flows} flows"
            )
        return SampleInfo(
            key=clip.key,
            path=clip.path,
            clip_number=clip.number,
            split=clip.split,
            label=clip.label,
            label_index=job.class_index.get(clip.label, -1) if clip.label else -1,
            n_frames=len(pts_s),
            n_flows=self._n_flows,
            height=self.height,
            width=self.width,
            pts_s=[round(t, 6) for t in pts_s.tolist()],
            source_index=clip.source_index.tolist(),
            **_source_fields(self._task.media, self._task.size_bytes),
            source_corrupt_frames=self._corrupt,
            fps_limit=settings.fps,
            stride=settings.stride,
            resize=settings.resize,
            decoder_build=tools.decoder.build,
            engine=tools.engine.name,
            engine_params=json.dumps(dict(tools.engine.params), sort_keys=True),
            engine_build=tools.engine.build,
            flow_codec=tools.flow_codec.name,
            flow_codec_params=tools.flow_codec.params,
            flow_member=f"flow.{tools.flow_codec.suffix}",
            flow_map=tools.quantizer.name,
            flow_bound_px=float(tools.quantizer.bound_px),
            flow_zero_code=float(tools.quantizer.zero_code),
            flow_px_per_code=float(tools.quantizer.px_per_code),
            flow_saturated_share=float(self._stats.saturated_share),
            flow_mean_px=float(self._stats.mean_px),
            flow_max_px=round(self._stats.max_px, 6),
            identical_pairs=self._identical,
            rgb_codec=tools.rgb_codec.name,
            rgb_codec_params=tools.rgb_codec.params,
            rgb_member=f"rgb.{tools.rgb_codec.suffix}",
            flowprep_version=__version__,
        )


def _source_fields(media: Media | None, size_bytes: int) -> dict:
    assert media is not None
    return {
        "source_size_bytes": size_bytes,
        "source_container": media.container,
        "source_codec": media.codec,
        "source_pix_fmt": media.pix_fmt,
        "source_width": media.width,
        "source_height": media.height,
        "source_rotation_deg": media.rotation_deg,
        "source_sar": str(media.sar),
        "source_transfer": media.transfer,
        "source_n_frames": media.n_frames,
        "source_duration_s": round(media.duration_s, 6),
    }
