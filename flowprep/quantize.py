"""Flow in pixels <-> integer codes.

Every map is affine, so one formula decodes them all, with two numbers from the sample's json:

    flow_px = (code - flow_zero_code) * flow_px_per_code

| map | code of a flow v | range | zero |
|---|---|---|---|
| symmetric | 128 + round(v * 127 / bound), within 1..255 | +-bound | exact; flip = 256 - code |
| i3d | round((v + bound) * 255 / (2 bound)), within 0..255 | +-bound | 128 is bound/255 |
| i3d-floor | floor((v + bound) * 255 / (2 bound)), within 0..255 | +-bound | 127, exact |
| int16 | 32768 + round(32 v), within 0..65535 | +-1024 px | exact |

`i3d` is the map of denseflow, TSN and the I3D data (kinetics-i3d README: 256 buckets over
[-20, 20]). `i3d-floor` is that of MARS, which cuts where the others round: a code stands for the
middle of the flows that have it, half a step above the code's own value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from flowprep.errors import FlowprepError
from flowprep.records import F32, U8, CodedFlow, Codes

MapName = Literal["symmetric", "i3d", "i3d-floor", "int16"]
MAPS: tuple[str, ...] = get_args(MapName)


@dataclass(frozen=True)
class Quantizer:
    """An affine map between flow in pixels and unsigned integer codes."""

    name: MapName
    bound_px: float
    zero_code: float
    px_per_code: float
    lowest: int
    highest: int

    @property
    def dtype(self) -> Any:
        """uint8, or uint16 when a byte does not hold the highest code."""
        return np.uint8 if self.highest <= 255 else np.uint16

    def encode(self, uv: F32) -> Codes:
        """Flow float32 [T, 2, H, W] in pixels -> codes [T, 2H, W], dx above dy."""
        n, _, height, width = uv.shape
        codes = np.multiply(uv, np.float32(1 / self.px_per_code))
        np.add(codes, np.float32(self.zero_code), out=codes)
        np.rint(codes, out=codes)
        np.clip(codes, self.lowest, self.highest, out=codes)
        return codes.reshape(n, 2 * height, width).astype(self.dtype)

    def coded(self, uv: F32) -> CodedFlow:
        """Flow float32 [T, 2, H, W] in pixels -> its codes, and what they no longer tell."""
        measured = [self._measured(*pair) for pair in uv]
        sum_px, max_px, n_beyond = np.array(measured, np.float64).reshape(-1, 3).T
        return CodedFlow(self.encode(uv), sum_px, max_px, n_beyond.astype(np.int64))

    def read(self, codes: U8) -> CodedFlow:
        """Codes [T, 2H, W] that are all that is left of a flow.

        Its vectors are those that the codes are decoded to; one with dx or dy at the first or last
        code counts as beyond the bound.
        """
        n, height2, width = codes.shape
        squared = (self.decode(codes) ** 2).sum(axis=1, dtype=np.float64).reshape(n, -1)
        at_end = (codes == self.lowest) | (codes == self.highest)
        beyond = at_end.reshape(n, 2, height2 // 2 * width).any(axis=1)
        lengths = np.sqrt(squared)
        return CodedFlow(codes, lengths.sum(axis=1), lengths.max(axis=1), beyond.sum(axis=1))

    def _measured(self, dx: F32, dy: F32) -> tuple[float, float, int]:
        squared = dx * dx + dy * dy
        sum_px = float(np.sqrt(squared).sum(dtype=np.float64))
        max_px = float(squared.max()) ** 0.5
        if max_px <= self.bound_px:
            return sum_px, max_px, 0
        beyond = np.maximum(np.abs(dx), np.abs(dy)) > self.bound_px
        return sum_px, max_px, int(np.count_nonzero(beyond))

    def decode(self, codes: Codes) -> F32:
        """Codes [T, 2H, W] -> flow float32 [T, 2, H, W] in pixels."""
        n, height2, width = codes.shape
        flow = (codes.astype(np.float32) - np.float32(self.zero_code)) * np.float32(
            self.px_per_code
        )
        return flow.reshape(n, 2, height2 // 2, width)

    def saturated_count(self, uv: F32) -> int:
        """How many of the values (two per pixel) lie beyond the bound."""
        return int(np.count_nonzero(np.abs(uv) > self.bound_px))


def make_quantizer(name: str, bound_px: float) -> Quantizer:
    """The map called `name`. Raises FlowprepError for an unknown name or an unusable bound."""
    if not 0 < bound_px <= 1024:
        raise FlowprepError(
            f"--bound {bound_px:g} is not usable", "give pixels per frame, above 0 and at most 1024"
        )
    if name == "symmetric":
        return Quantizer("symmetric", bound_px, 128, bound_px / 127, 1, 255)
    if name == "i3d":
        return Quantizer("i3d", bound_px, 127.5, 2 * bound_px / 255, 0, 255)
    if name == "i3d-floor":
        return Quantizer("i3d-floor", bound_px, 127, 2 * bound_px / 255, 0, 255)
    if name == "int16":
        return Quantizer("int16", 1023.96875, 32768, 1 / 32, 0, 65535)
    raise FlowprepError(f"unknown flow map {name!r}", f"allowed: {', '.join(MAPS)}")
