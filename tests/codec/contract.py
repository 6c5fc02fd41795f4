"""The codec contract: every codec in the registry passes every check of its kind.

A check is a function of a codec and an empty folder. Add a codec to `flowprep.codec.base.CODECS`
and it is run here; nothing else has to be written.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from codec_clips import N_FRAMES, encode, frame_times, make_frames, psnr_db

from flowprep.codec.base import GOP, Codec

Check = Callable[[Codec, Path], None]

MIN_PSNR_DB = {(16, 16): 32.0}  # of lossy codecs on moving texture; one macroblock is hard
OTHER_MIN_PSNR_DB = 38.0
SIZES_HW = [(16, 16), (48, 64), (37, 53), (40, 33), (33, 40), (18, 200), (200, 18)]
N_DAMAGED = 40


def check_round_trip_at_every_size(codec: Codec, folder: Path) -> None:
    for height, width in SIZES_HW:
        frames = make_frames(codec.kind, height, width)
        back = codec.read(encode(codec, frames, folder))
        assert back.dtype == frames.dtype
        assert back.shape == frames.shape
        if codec.lossless:
            np.testing.assert_array_equal(back, frames)
        else:
            bar_db = MIN_PSNR_DB.get((height, width), OTHER_MIN_PSNR_DB)
            assert psnr_db(frames, back) >= bar_db, (height, width)


def check_colours_do_not_shift(codec: Codec, folder: Path) -> None:
    """Mean error of each channel (RGB) or plane (flow) below half a level."""
    frames = make_frames(codec.kind, 64, 80)
    error = codec.read(encode(codec, frames, folder)).astype(np.float64) - frames
    planes = (
        error.mean((0, 1, 2))
        if codec.kind == "rgb"
        else error.reshape(len(frames), 2, -1).mean((0, 2))
    )
    assert np.all(np.abs(planes) < 0.5), planes


def check_flat_colours_survive(codec: Codec, folder: Path) -> None:
    """The whole range, black and white included, within what 8-bit YCbCr can hold."""
    top = 65535 if codec.kind == "flow16" else 255
    tolerance = 0 if codec.lossless else 3
    for value in (0, 1, 16, 100, 200, 235, 254, 255):
        level = value * top // 255
        shape = (3, 32, 48, 3) if codec.kind == "rgb" else (3, 64, 48)
        frames = np.full(shape, level, np.uint16 if codec.kind == "flow16" else np.uint8)
        error = codec.read(encode(codec, frames, folder)).astype(int) - frames
        assert np.abs(error).max() <= tolerance, value


def check_zero_flow_is_exact(codec: Codec, folder: Path) -> None:
    zero, dtype = (32768, np.uint16) if codec.kind == "flow16" else (128, np.uint8)
    for width in (48, 45):
        codes = np.full((N_FRAMES, 72, width), zero, dtype)
        np.testing.assert_array_equal(codec.read(encode(codec, codes, folder)), codes)


def check_one_frame(codec: Codec, folder: Path) -> None:
    frames = make_frames(codec.kind, 40, 48, n_frames=1)
    assert codec.read(encode(codec, frames, folder)).shape == frames.shape


def check_chunks_do_not_matter(codec: Codec, folder: Path) -> None:
    frames = make_frames(codec.kind, 40, 48)
    whole = encode(codec, frames, folder)
    for chunks in ([1] * N_FRAMES, [1, 0, N_FRAMES - 1], [GOP, N_FRAMES - GOP], [7, 20, 10]):
        assert encode(codec, frames, folder, chunks) == whole, chunks


def check_bytes_repeat(codec: Codec, folder: Path) -> None:
    for height, width in [(40, 48), (37, 53), (72, 90)]:
        frames = make_frames(codec.kind, height, width)
        assert len({encode(codec, frames, folder) for _ in range(3)}) == 1, (height, width)


def check_threads_do_not_matter(codec: Codec, folder: Path) -> None:
    frames = make_frames(codec.kind, 64, 80)
    path = folder / f"threads.{codec.suffix}"
    with codec.open_writer(path, *frames.shape[1:3], threads=4) as writer:
        writer.write(frames, frame_times(len(frames)))
    assert path.read_bytes() == encode(codec, frames, folder)


def check_input_is_left_alone(codec: Codec, folder: Path) -> None:
    frames = make_frames(codec.kind, 40, 48)
    before = frames.copy()
    frames.setflags(write=False)
    strided = encode(codec, np.asfortranarray(frames), folder)
    assert strided == encode(codec, frames, folder)
    np.testing.assert_array_equal(frames, before)


def check_windows_are_slices(codec: Codec, folder: Path) -> None:
    frames = make_frames(codec.kind, 40, 48)
    data = encode(codec, frames, folder)
    whole = codec.read(data)
    edges = sorted({0, 1, GOP - 1, GOP, GOP + 1, 2 * GOP - 1, 2 * GOP, N_FRAMES - 1, N_FRAMES})
    for start in edges:
        for stop in [stop for stop in edges if stop >= start]:
            np.testing.assert_array_equal(codec.read(data, start, stop), whole[start:stop])
        np.testing.assert_array_equal(codec.read(data, start), whole[start:])


def check_impossible_windows(codec: Codec, folder: Path) -> None:
    data = encode(codec, make_frames(codec.kind, 40, 48), folder)
    for start, stop in [(0, N_FRAMES + 1), (N_FRAMES + 1, None), (100, 101), (100, 100)]:
        with pytest.raises(ValueError, match=str(N_FRAMES)):
            codec.read(data, start, stop)
    for start, stop in [(-1, 2), (3, 2)]:
        with pytest.raises(ValueError, match="window"):
            codec.read(data, start, stop)


def check_wrong_arrays_are_refused(codec: Codec, folder: Path) -> None:
    frames = make_frames(codec.kind, 40, 48, n_frames=2)
    times = frame_times(2)
    wrong = [
        (frames[:, 1:], times),
        (frames.astype(np.float32), times),
        (frames, times[:1]),
        (frames, times[::-1]),
    ]
    for arrays, pts_s in wrong:
        path = folder / f"wrong.{codec.suffix}"
        with (
            pytest.raises(ValueError, match=r"frame"),
            codec.open_writer(path, *frames.shape[1:3]) as writer,
        ):
            writer.write(arrays, pts_s)
        assert not path.exists()


def check_failure_leaves_nothing(codec: Codec, folder: Path) -> None:
    frames = make_frames(codec.kind, 40, 48)
    path = folder / f"gone.{codec.suffix}"
    n_open = len(os.listdir("/proc/self/fd"))
    writer = codec.open_writer(path, *frames.shape[1:3])
    writer.__enter__()
    writer.write(frames, frame_times(len(frames)))
    writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    del writer
    assert not path.exists()
    assert len(os.listdir("/proc/self/fd")) == n_open


def check_missing_folder_is_an_oserror(codec: Codec, folder: Path) -> None:
    frames = make_frames(codec.kind, 40, 48, n_frames=2)
    path = folder / "nowhere" / f"clip.{codec.suffix}"
    with (
        pytest.raises(FileNotFoundError),
        codec.open_writer(path, *frames.shape[1:3]) as writer,
    ):
        writer.write(frames, frame_times(2))


def check_odd_paths(codec: Codec, folder: Path) -> None:
    """Names that FFmpeg would take for a URL or a pattern, and a path that is not absolute."""
    here = Path.cwd()
    os.chdir(folder)
    try:
        odd = Path("http:") / "%d é"
        odd.mkdir(parents=True)
        frames = make_frames(codec.kind, 40, 48, n_frames=3)
        assert codec.read(encode(codec, frames, odd)).shape == frames.shape
    finally:
        os.chdir(here)


def damaged(data: bytes, seed: int) -> bytes:
    """`data` cut short, with flipped bytes, or with a zeroed stretch."""
    rng = np.random.default_rng(seed)
    broken = np.frombuffer(data, np.uint8).copy()
    at = rng.integers(0, len(data), 8)
    if seed % 3 == 0:
        return data[: at[0]]
    if seed % 3 == 1:
        broken[at[: 1 + seed % 8]] ^= rng.integers(1, 256, 1 + seed % 8).astype(np.uint8)
    else:
        broken[at[0] : at[0] + 64] = 0
    return broken.tobytes()


def check_damage_is_a_valueerror(codec: Codec, folder: Path) -> None:
    frames = make_frames(codec.kind, 40, 48)
    data = encode(codec, frames, folder)
    others = [b"", b"\0" * 4096, b"#EXTM3U\nhttp://example.org/a.mp4\n", os.urandom(4096)]
    n_refused = 0
    for broken in others + [damaged(data, seed) for seed in range(N_DAMAGED)]:
        try:
            back = codec.read(broken, 3, 20)
        except ValueError:
            n_refused += 1
            continue
        assert back.shape[0] == 17
        assert back.dtype == frames.dtype
    assert n_refused >= len(others) + 1


ALL: list[Check] = [
    check_round_trip_at_every_size,
    check_colours_do_not_shift,
    check_flat_colours_survive,
    check_one_frame,
    check_chunks_do_not_matter,
    check_bytes_repeat,
    check_threads_do_not_matter,
    check_input_is_left_alone,
    check_windows_are_slices,
    check_impossible_windows,
    check_wrong_arrays_are_refused,
    check_failure_leaves_nothing,
    check_missing_folder_is_an_oserror,
    check_odd_paths,
    check_damage_is_a_valueerror,
]
