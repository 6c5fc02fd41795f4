"""What the contract asks of reading a window out of a file."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from codec_clips import N_FRAMES, encode, make_frames
from contract_video import packets_of

from flowprep.codec.base import GOP, Codec, Region
from flowprep.shard.reader import open_member

Check = Callable[[Codec, Path], None]


class CountedFile(io.BytesIO):
    """Counts the bytes that are read."""

    n_read = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.n_read += len(data)
        return data


def check_files_are_read_like_bytes(codec: Codec, folder: Path) -> None:
    """A stretch of a longer file, as a member lies in a tar."""
    data = encode(codec, make_frames(codec.kind, 40, 48), folder)
    whole = codec.read(data)
    path = folder / "longer"
    path.write_bytes(os.urandom(1001) + data + os.urandom(1001))
    with path.open("rb") as longer:
        for start, stop in [(0, None), (0, 1), (5, 9), (GOP - 1, GOP + 1), (GOP + 3, N_FRAMES)]:
            member = open_member(longer.fileno(), 1001, len(data))
            np.testing.assert_array_equal(codec.read(member, start, stop), whole[start:stop])


def check_frames_come_one_by_one(codec: Codec, folder: Path) -> None:
    """And stay what they were when later ones come."""
    data = encode(codec, make_frames(codec.kind, 40, 48), folder)
    one_by_one = list(codec.frames(data, 3, GOP + 5))
    np.testing.assert_array_equal(one_by_one, codec.read(data, 3, GOP + 5))
    assert list(codec.frames(data, 7, 7)) == []
    for start, stop in [(-1, 2), (3, 2), (0, N_FRAMES + 1)]:
        with pytest.raises(ValueError, match=r"frames|images"):
            list(codec.frames(data, start, stop))


def check_regions_are_parts_of_whole_frames(codec: Codec, folder: Path) -> None:
    """Bit for bit, wherever the corners lie: chroma is shared by four pixels."""
    rng = np.random.default_rng(0)
    for height, width in [(40, 48), (37, 53), (66, 150)]:
        planes = 1 if codec.kind == "rgb" else 2
        data = encode(codec, make_frames(codec.kind, height, width, n_frames=3), folder)
        whole = codec.read(data)
        whole_HW = whole.reshape(3, planes, height, *whole.shape[2:])
        boxes = [(0, 0, height, width), (0, 0, 1, 1), (height - 1, width - 1, 1, 1)]
        for _ in range(20):
            (top, bottom), (left, right) = (
                np.sort(rng.choice(side + 1, 2, replace=False)).tolist() for side in (height, width)
            )
            boxes.append((top, left, bottom - top, right - left))
        for top, left, h, w in boxes:
            region = Region(height, width, top, left, h, w)
            parts = np.stack(list(codec.frames(data, 1, 3, region)))
            wanted = whole_HW[1:, :, top : top + h, left : left + w]
            np.testing.assert_array_equal(parts, wanted.reshape(2, planes * h, *wanted.shape[3:]))


def check_other_regions_are_refused(codec: Codec, folder: Path) -> None:
    """Of pictures of another size, or beyond the edge."""
    data = encode(codec, make_frames(codec.kind, 40, 48, n_frames=2), folder)
    for size in [(38, 48), (40, 50), (80, 48)]:
        with pytest.raises(ValueError, match="picture"):
            next(codec.frames(data, 0, 2, Region(*size, 0, 0, 8, 8)))
    for box in [(-1, 0, 8, 8), (33, 0, 8, 8), (0, 41, 8, 8), (0, -1, 8, 8), (0, 0, 0, 8)]:
        with pytest.raises(ValueError, match="no part"):
            next(codec.frames(data, 0, 2, Region(40, 48, *box)))


def check_a_file_cut_short_is_refused(codec: Codec, folder: Path) -> None:
    data = encode(codec, make_frames(codec.kind, 40, 48), folder)
    for size in (len(data) // 2, 100, 0):
        with pytest.raises(ValueError, match=codec.name):
            codec.read(io.BytesIO(data[:size]), N_FRAMES - 2, N_FRAMES)


def check_a_small_part_is_read(codec: Codec, folder: Path) -> None:
    """One group of 20, and a few times the 8 KiB that FFmpeg reads at once."""
    rng = np.random.default_rng(0)
    shape = (20 * GOP, 64, 80, 3) if codec.kind == "rgb" else (20 * GOP, 128, 80)
    file = CountedFile(encode(codec, rng.integers(0, 255, shape).astype(np.uint8), folder))
    n_bytes = len(file.getvalue())
    window = codec.read(file, 13 * GOP + 5, 14 * GOP)
    assert file.n_read < n_bytes / 20 + 64 * 1024
    assert file.n_read < n_bytes / 5
    np.testing.assert_array_equal(window, codec.read(file.getvalue())[13 * GOP + 5 : 14 * GOP])


def check_damage_in_the_window_is_seen(codec: Codec, folder: Path) -> None:
    data = encode(codec, make_frames(codec.kind, 40, 48), folder)
    packet = bytes(packets_of(data)[GOP])
    at = data.index(packet)
    broken = data[:at] + bytes(len(packet)) + data[at + len(packet) :]
    with pytest.raises(ValueError, match=codec.name):
        codec.read(broken, GOP + 3, GOP + 5)


def check_a_reader_without_index_gives_the_same(codec: Codec, folder: Path) -> None:
    """As with a PyAV that shows no index entries."""
    data = encode(codec, make_frames(codec.kind, 40, 48), folder)
    with pytest.MonkeyPatch.context() as patch:
        fast = [codec.read(data, start, start + 3) for start in (0, 7, GOP, N_FRAMES - 3)]
        patch.setattr("flowprep.codec.window._index", lambda stream, stop: None)
        slow = [codec.read(data, start, start + 3) for start in (0, 7, GOP, N_FRAMES - 3)]
        with pytest.raises(ValueError, match=str(N_FRAMES)):
            codec.read(data, 100, 101)
    np.testing.assert_array_equal(slow, fast)


def check_a_lost_cluster_is_seen(codec: Codec, folder: Path) -> None:
    """FFmpeg goes on at the next Matroska cluster without a word, 16 frames later."""
    data = encode(codec, make_frames(codec.kind, 40, 48), folder)
    starts = [match.start() for match in re.finditer(b"\x1f\x43\xb6\x75", data)]
    assert len(starts) == 3
    broken = data[: starts[1]] + bytes(starts[2] - starts[1]) + data[starts[2] :]
    with pytest.raises(ValueError, match="lacks frames"):
        codec.read(broken, GOP, GOP + 2)


ALL: list[Check] = [
    check_files_are_read_like_bytes,
    check_frames_come_one_by_one,
    check_regions_are_parts_of_whole_frames,
    check_other_regions_are_refused,
    check_a_file_cut_short_is_refused,
]
VIDEO: list[Check] = [
    check_damage_in_the_window_is_seen,
    check_a_reader_without_index_gives_the_same,
]
INDEXED: list[Check] = [check_a_small_part_is_read]
MKV: list[Check] = [check_a_lost_cluster_is_seen]
