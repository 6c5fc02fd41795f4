"""One sample, of which frames and flow are decoded as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from flowprep.codec.base import get_codec
from flowprep.errors import FlowprepError
from flowprep.records import F32, U8
from flowprep.shard.layout import Layout
from flowprep.shard.reader import Sample, check_coding, flow_px, read_current
from flowprep.shard.schema import SampleInfo, SampleRow
from flowprep.storage import plain


class Clip:
    """The members of a sample. Raises ValueError where they are not what its json says."""

    def __init__(self, sample: Sample) -> None:
        self.info: SampleInfo = sample.info
        check_coding(self.info)
        if self.info.n_frames != self.info.n_flows + 1 or self.info.n_flows < 1:
            raise ValueError(f"{self.info.n_frames} frames and {self.info.n_flows} flows")
        if len(self.info.pts_s) != self.info.n_frames:
            raise ValueError(f"{len(self.info.pts_s)} times for {self.info.n_frames} frames")
        try:
            self._rgb = get_codec(self.info.rgb_codec, ["rgb"])
            self._flow = get_codec(self.info.flow_codec, ["flow8", "flow16"])
            self._rgb_data = sample.members[self.info.rgb_member]
            self._flow_data = sample.members[self.info.flow_member]
        except FlowprepError as error:
            raise ValueError(error.message) from error
        except KeyError as error:
            raise ValueError(f"it has no member {error}") from error

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[U8]:
        """uint8 [H, W, 3], one by one."""
        shape = (self.info.height, self.info.width, 3)
        return _checked(self._rgb.frames(self._rgb_data, start, stop), shape)

    def flows(self, start: int = 0, stop: int | None = None) -> Iterator[F32]:
        """float32 [2, H, W] in pixels; number i leads from frame i to frame i + 1."""
        shape = (2 * self.info.height, self.info.width)
        for codes in _checked(self._flow.frames(self._flow_data, start, stop), shape):
            flow: F32 = flow_px(self.info, codes[None])[0]
            yield flow

    @property
    def step_s(self) -> float:
        """Usual time from a frame to the next."""
        return float(np.median(np.diff(self.info.pts_s)))


def _checked(pictures: Iterator[np.ndarray], shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    for picture in pictures:
        if picture.shape != shape:
            raise ValueError(f"a picture is {list(picture.shape)}, its json says {list(shape)}")
        yield picture


def open_clip(layout: Layout, shard: str, row: SampleRow) -> Clip:
    """The sample of this row of the index, from its place in the tar.

    Raises ValueError where the index leads out of the dataset or of the tar, or the sample is not
    as it should be; OSError where the system does not read it.
    """
    if not shard or Path(shard).name != shard:
        raise ValueError(f"{shard!r} is no name of a shard")
    return Clip(read_current(plain(layout.tar(shard)), row))
