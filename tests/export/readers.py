"""The readers that exports are for, as their source has them and with nothing of flowprep in it.

mmaction2: open-mmlab/mmaction2 786d570, mmaction/datasets/transforms/loading.py (SampleFrames,
RawFrameDecode), and mmaction/datasets/rawframe_dataset.py (load_data_list).
TSN: yjxiong/tsn-pytorch 792df86, dataset.py (VideoRecord, TSNDataSet).
MARS: craston/MARS 743cdbb, dataset/dataset.py (get_test_video).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np


class Item(NamedTuple):
    frame_dir: str
    total_frames: int
    label: int


def mmaction2_list(ann_file: Path, data_prefix: Path) -> list[Item]:
    """RawframeDataset.load_data_list, single label, no offset."""
    items = []
    for line in ann_file.read_text().splitlines():
        words = line.strip().split()
        labels = [int(word) for word in words[2:]] or [-1]
        assert len(labels) == 1
        items.append(Item(str(data_prefix / words[0]), int(words[1]), labels[0]))
    return items


def mmaction2_frames(item: Item, filename_tmpl: str, start_index: int, modality: str) -> np.ndarray:
    """All frames by SampleFrames (whose indices count from 0) and RawFrameDecode.

    RGB [T, H, W, 3], Flow [T, H, W, 2].
    """
    frames = []
    for index in np.arange(item.total_frames) + start_index:
        if modality == "RGB":
            image = _decoded(Path(item.frame_dir) / filename_tmpl.format(index), cv2.IMREAD_COLOR)
            frames.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        else:
            names = [filename_tmpl.format(axis, index) for axis in ("x", "y")]
            planes = [_decoded(Path(item.frame_dir) / n, cv2.IMREAD_GRAYSCALE) for n in names]
            frames.append(np.stack(planes, axis=-1))
    return np.stack(frames)


def tsn_list(list_file: Path) -> list[Item]:
    """TSNDataSet._parse_list: a record is what lies between single blanks."""
    rows = [line.strip().split(" ") for line in list_file.read_text().splitlines()]
    return [Item(row[0], int(row[1]), int(row[2])) for row in rows]


def tsn_frames(item: Item, image_tmpl: str, modality: str) -> np.ndarray:
    """TSNDataSet.get over every index it may ask for: 1 to num_frames."""
    frames = []
    for p in range(1, item.total_frames + 1):
        if modality == "RGB":
            image = _decoded(Path(item.frame_dir) / image_tmpl.format(p), cv2.IMREAD_COLOR)
            frames.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        else:
            paths = [Path(item.frame_dir) / image_tmpl.format(axis, p) for axis in ("x", "y")]
            frames.append(np.stack([_decoded(path, cv2.IMREAD_GRAYSCALE) for path in paths], -1))
    return np.stack(frames)


def _decoded(path: Path, flag: int) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), flag)
    assert image is not None, path
    return image
