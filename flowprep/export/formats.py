"""One sample as the files of another tool."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flowprep.codec.base import get_codec
from flowprep.export.flo import flo_bytes
from flowprep.rawframes import AXES, get_style
from flowprep.records import F32, U8
from flowprep.shard.reader import Sample, check_coding, flow_px

FORMS = ("rawframes", "npz", "flo")
FIRST_DOS_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Form:
    """What is made of every sample. The last three are of rawframes alone."""

    to: str  # one of FORMS
    style: str = ""
    image: str = ""  # jpg or png
    bound_px: float = 0.0

    @property
    def suffix(self) -> str:
        return ".npz" if self.to == "npz" else ""


class Decoded:
    """The frames and the flow of a sample, one by one, held against its json.

    Raises ValueError where they do not fit.
    """

    def __init__(self, sample: Sample) -> None:
        self.info = info = sample.info
        check_coding(info)
        self._rgb = sample.members[info.rgb_member]
        self._flow = sample.members[info.flow_member]

    def rgb(self) -> Iterator[U8]:
        """uint8 [H, W, 3]."""
        info = self.info
        frames = get_codec(info.rgb_codec, ["rgb"]).frames(self._rgb)
        yield from _counted(frames, info.n_frames, (info.height, info.width, 3), "RGB frames")

    def flow(self) -> Iterator[F32]:
        """float32 [2, H, W] in pixels."""
        info = self.info
        frames = get_codec(info.flow_codec, ["flow8", "flow16"]).frames(self._flow)
        for codes in _counted(frames, info.n_flows, (2 * info.height, info.width), "flows"):
            yield flow_px(info, codes[None])[0]


def _counted(
    frames: Iterable[np.ndarray], n_wanted: int, shape: tuple[int, ...], what: str
) -> Iterator[np.ndarray]:
    n_found = 0
    for frame in frames:
        if frame.shape != shape:
            raise ValueError(f"{what} are {list(frame.shape)}, the json says {list(shape)}")
        n_found += 1
        yield frame
    if n_found != n_wanted:
        raise ValueError(f"{n_found} {what}, the json says {n_wanted}")


def write_sample(form: Form, sample: Sample, target: Path) -> None:
    """Make `target`, a file or a folder that is not there yet.

    Raises ValueError when the sample does not decode, OSError when the disk does not take it.
    """
    decoded = Decoded(sample)
    if form.to == "npz":
        _write_npz(decoded, target)
        return
    target.mkdir()
    if form.to == "flo":
        for number, flow in enumerate(decoded.flow()):
            (target / f"{number:05d}.flo").write_bytes(flo_bytes(flow))
        return
    _write_rawframes(decoded, form, target)


def _write_rawframes(decoded: Decoded, form: Form, folder: Path) -> None:
    style = get_style(form.style)
    for number, rgb in enumerate(decoded.rgb(), style.first - style.n_unsaved):
        if number >= style.first:
            _write_image(folder / f"{style.rgb_name(number)}.{form.image}", rgb[..., ::-1])
    for number, flow in enumerate(decoded.flow(), style.first):
        for axis, codes in zip(AXES, rounded_codes(flow, form.bound_px), strict=True):
            _write_image(folder / f"{style.flow_name(axis, number)}.{form.image}", codes)


def rounded_codes(flow_px: np.ndarray, bound_px: float) -> U8:
    """Flow as denseflow and dense_flow quantise it, in doubles as they do (CAST in common.cpp)."""
    codes = 255 * (flow_px.astype(np.float64) + bound_px) / (2 * bound_px)
    return np.clip(np.rint(codes), 0, 255).astype(np.uint8)


def _write_image(path: Path, image: np.ndarray) -> None:
    """With OpenCV's defaults (JPEG quality 95), as denseflow and dense_flow do."""
    import cv2

    try:
        done, data = cv2.imencode(path.suffix, image)
    except cv2.error as error:
        raise ValueError(f"OpenCV does not encode {path.name}: {error}") from error
    if not done:
        raise ValueError(f"OpenCV does not encode {path.name}")
    path.write_bytes(data.tobytes())


def _write_npz(decoded: Decoded, path: Path) -> None:
    """As np.savez writes it, but frame by frame."""
    info = decoded.info
    rgb, flow = (info.height, info.width, 3), (2, info.height, info.width)
    small: dict[str, Any] = {
        "pts_s": np.array(info.pts_s, np.float64),
        "source_index": np.array(info.source_index, np.int64),
        "label_index": np.array(info.label_index, np.int64),
        **{name: np.array(getattr(info, name)) for name in ("key", "path", "split", "label")},
        "info_json": np.array(info.to_json().decode()),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, "rgb_THW3", np.uint8, (info.n_frames, *rgb), decoded.rgb())
        _add(archive, "flow_T2HW", np.float32, (info.n_flows, *flow), decoded.flow())
        for name, array in small.items():
            _add(archive, name, array.dtype, array.shape, [array])


def _add(
    archive: zipfile.ZipFile,
    name: str,
    dtype: Any,
    shape: tuple[int, ...],
    parts: Iterable[np.ndarray],
) -> None:
    """An array of the archive, of which the parts are one behind the other."""
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": shape,
    }
    entry = zipfile.ZipInfo(f"{name}.npy", FIRST_DOS_DATE)
    with archive.open(entry, "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part, dtype).tobytes())
