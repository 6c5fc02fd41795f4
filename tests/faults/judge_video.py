"""What flowprep makes of one file, and what PyAV by itself makes of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import av
import numpy as np

import flowprep.decode.pyav as pyav
from flowprep import decode
from flowprep.clips import clips_of
from flowprep.config import Settings
from flowprep.decode.geometry import resize, to_gray
from flowprep.decode.opening import FORMATS
from flowprep.errors import REASONS, ClipError
from flowprep.records import Media, Video
from flowprep.run.stages import output_size

SAMPLE = "sample"
STRICT = "crccheck+bitstream+buffer+explode"
ORACLE_PIXELS = 64_000_000  # more is not asked of plain PyAV
DECODE_FOLDER = str(Path(decode.__file__).parent)


@dataclass(frozen=True)
class Case:
    """A file to judge."""

    data: bytes
    path: Path  # where to put it
    trace: bool = False


@dataclass(kw_only=True)
class Verdict:
    """`outcome` is SAMPLE, a reason, or what went wrong in flowprep."""

    outcome: str
    message: str = ""
    n_frames: int = 0
    plain_frames: int | None = (
        None  # what PyAV decodes without any complaint, None where it has one
    )
    kind: str = ""  # container and codec
    arcs: frozenset[tuple[str, int, int]] = field(default_factory=frozenset)

    @property
    def is_bug(self) -> bool:
        return self.outcome not in (SAMPLE, *REASONS)

    @property
    def is_disputed(self) -> bool:
        """PyAV decodes it whole, and flowprep refuses it or has another count."""
        if self.plain_frames is None or self.is_bug:
            return False
        return self.outcome != SAMPLE or self.n_frames != self.plain_frames


def ready() -> None:
    """Load what is slow before limits are set."""
    import cv2

    cv2.setNumThreads(1)
    pyav.SEEK_FROM_S = 0.0  # seeds are short: let every frame but the first be sought


def judge(case: Case) -> Verdict:
    """Probe, plan and decode as extract does; then let PyAV decode it alone."""
    case.path.write_bytes(case.data)
    arcs: set[tuple[str, int, int]] = set()
    with _traced(arcs) if case.trace else _untraced():
        verdict = _made(case.path)
    verdict.arcs = frozenset(arcs)
    verdict.plain_frames = _plain(case.path)
    return verdict


def _made(path: Path) -> Verdict:
    try:
        media = pyav.PyAVDecoder().probe(str(path))
        kind = f"{media.container.split(',')[0]}/{media.codec}"
        n_frames = _decoded(path, media)
    except ClipError as error:
        return Verdict(outcome=error.reason, message=error.message)
    except Exception as error:  # noqa: BLE001 - what is judged here
        return Verdict(outcome=f"BUG {type(error).__name__}", message=str(error))
    if n_frames != media.n_frames:
        return Verdict(outcome="BUG count", message=f"{n_frames} of {media.n_frames}")
    return Verdict(outcome=SAMPLE, n_frames=n_frames, kind=kind)


def _decoded(path: Path, media: Media) -> int:
    """Frames that came of all; the clips that extract plans must be there too."""
    decoder = pyav.PyAVDecoder()
    size = output_size(media, Settings())
    n_frames = 0
    for frame in decoder.frames(str(path), media, np.arange(media.n_frames)):
        assert frame.shape == (media.height, media.width, 3)
        assert frame.dtype == np.uint8
        if n_frames % 16 == 0:
            to_gray(resize(frame, *size, "area"))
        n_frames += 1
    for clip in _planned(media):
        taken = clip.source_index[-1:]
        assert sum(1 for _ in decoder.frames(str(path), media, taken)) == 1
    return n_frames


def _planned(media: Media) -> list[Any]:
    """The first and the last clip that can be made."""
    video = Video(path="case", size_bytes=1, mtime_ns=1, media=media)
    native = clips_of(video, replace(Settings(), fps=0.0, clip_max_s=10.0))
    clips = [c for c in [*clips_of(video, Settings()), *native] if not c.reason]
    assert all(c.n_frames >= 2 for c in clips)
    return [clips[0], clips[-1]] if clips else []


def _plain(path: Path) -> int | None:
    """How many frames PyAV gives of a file that it decodes without error, damage mark or log."""
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as log:
            n_frames = _strictly_counted(path)
    except Exception:  # noqa: BLE001 - whatever it is, PyAV does not decode it whole
        return None
    finally:
        av.logging.set_level(None)
    return None if log else n_frames or None


def _strictly_counted(path: Path) -> int | None:
    with av.open(str(path), container_options={"err_detect": STRICT}) as container:
        if container.format.name.split(",")[0] not in FORMATS:
            return None
        stills = av.stream.Disposition.attached_pic | av.stream.Disposition.still_image
        stream = next(s for s in container.streams.video if not s.disposition & stills)
        context = stream.codec_context
        context.thread_count, context.thread_type = 1, "NONE"
        context.options = {"err_detect": STRICT, "max_pixels": str(ORACLE_PIXELS)}
        n_frames = n_packets = 0
        for packet in container.demux(stream):
            n_packets += packet.size > 0
            for frame in packet.decode():
                n_frames += 1
                if packet.is_corrupt or frame.is_corrupt:
                    return None
    return n_frames if n_frames >= n_packets else None


@contextmanager
def _untraced() -> Iterator[None]:
    yield


@contextmanager
def _traced(arcs: set[tuple[str, int, int]]) -> Iterator[None]:
    """Collect the steps from line to line inside flowprep/decode."""

    def on_call(frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(DECODE_FOLDER):
            return None
        name, last = Path(frame.f_code.co_filename).name, -frame.f_code.co_firstlineno

        def on_line(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal last
            if event == "line":
                arcs.add((name, last, frame.f_lineno))
                last = frame.f_lineno
            return on_line

        return on_line

    sys.settrace(on_call)
    try:
        yield
    finally:
        sys.settrace(None)
