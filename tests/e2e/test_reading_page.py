"""Every way of reading that docs/reading.md shows, run word for word on real shards."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from flowprep.codec.base import get_codec
from flowprep.shard.layout import Layout
from flowprep.shard.reader import Sample, flow_px, iter_samples

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reading.md"
ALWAYS = ["webdataset", "PyTorch, as a stream", "PyTorch, any sample in any order"]
ALWAYS += ["Hugging Face datasets"]
TELL = {  # what of its loop each block is asked for: key, bytes or None, frames, flow
    "webdataset": "info['key'], (sample['rgb.mp4'], sample['flow.mp4']), rgb_THW3, flow_T2HW",
    "PyTorch, as a stream": "batch['key'], None, rgb_BTHW3.numpy(), flow_BT2HW.numpy()",
    "PyTorch, any sample in any order": "batch['key'], None, rgb_BTHW3.numpy(), flow_BT2HW.numpy()",
    "Hugging Face datasets": "info['key'], (rgb, flow), rgb_THW3, flow_T2HW",
    "Ray Data": "info['key'], (sample['rgb.mp4'], sample['flow.mp4']), rgb_THW3, flow_T2HW",
}


class Read(NamedTuple):
    """A sample as somebody else read it."""

    key: str
    members: tuple[bytes, bytes] | None  # RGB and flow as they are stored
    rgb: np.ndarray
    flow: np.ndarray


def blocks() -> dict[str, str]:
    """Heading -> its block of Python."""
    found = re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    code = {name: re.findall(r"```python\n(.*?)```", text, re.DOTALL) for name, text in found}
    assert all(len(all_of_it) == 1 for all_of_it in code.values())
    return {name: only for name, (only,) in code.items()}


def run(shards: Path, folder: Path, names: list[str]) -> dict[str, list[Read]]:
    """What the blocks with these headings read, in a process of their own as a user's would."""
    code = blocks()
    lines = ["import pickle", "seen = {}", code["Decode"]]
    for name in names:
        lines += [f"seen[{name!r}] = []", code[name].rstrip()]
        lines += [f"    seen[{name!r}].append(({TELL[name]}))", ""]
    lines += ["with open('seen.pickle', 'wb') as file:", "    pickle.dump(seen, file)"]
    (folder / "read.py").write_text("\n".join(lines))
    (folder / "shards").symlink_to(shards)
    done = subprocess.run(
        [sys.executable, "read.py"], cwd=folder, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen: dict[str, list[Any]] = pickle.loads((folder / "seen.pickle").read_bytes())
    return {name: [read for row in seen[name] for read in unbatched(row)] for name in names}


def unbatched(row: tuple[Any, ...]) -> list[Read]:
    key, members, rgb, flow = row
    if isinstance(key, str):
        return [Read(key, members, rgb, flow)]
    assert 1 <= len(key) <= 2
    return [Read(*one) for one in zip(key, [None] * len(key), rgb, flow, strict=True)]


@pytest.fixture(scope="module")
def read(motion_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Read]]:
    return run(motion_shards, tmp_path_factory.mktemp("reading"), ALWAYS)


@pytest.fixture(scope="module")
def ours(motion_shards: Path) -> dict[str, Sample]:
    samples = [s for p in sorted(motion_shards.glob("*.tar")) for s in iter_samples(p)]
    return {sample.key: sample for sample in samples}


def compare(theirs: list[Read], ours: dict[str, Sample]) -> None:
    assert sorted(one.key for one in theirs) == sorted(ours)
    for one in theirs:
        sample = ours[one.key]
        info = sample.info
        if one.members is not None:
            assert one.members == (sample.members["rgb.mp4"], sample.members["flow.mp4"])
        rgb = get_codec(info.rgb_codec, ["rgb"]).read(sample.members[info.rgb_member])
        codes = get_codec(info.flow_codec, ["flow8"]).read(sample.members[info.flow_member])
        flow, n_frames = flow_px(info, codes), len(one.rgb)
        assert n_frames in (4, info.n_frames)
        np.testing.assert_array_equal(one.rgb, rgb[:n_frames])
        np.testing.assert_array_equal(one.flow, flow[: n_frames - 1])
        assert len(one.flow) == n_frames - 1


def test_every_way_on_the_page_is_tried() -> None:
    assert set(blocks()) == {"Decode", *TELL, "DALI"}
    assert set(TELL) == {*ALWAYS, "Ray Data"}


@pytest.mark.parametrize("name", ALWAYS)
def test_it_reads_what_we_read(
    read: dict[str, list[Read]], ours: dict[str, Sample], name: str
) -> None:
    compare(read[name], ours)


@pytest.mark.slow
def test_ray_data_reads_what_we_read(
    motion_shards: Path, ours: dict[str, Sample], tmp_path: Path
) -> None:
    compare(run(motion_shards, tmp_path, ["Ray Data"])["Ray Data"], ours)


def test_the_code_for_dali_is_python_and_names_files_that_are_there(motion_shards: Path) -> None:
    """It cannot be run here: `nvidia-dali` needs a GPU."""
    code = blocks()["DALI"]
    compile(code, str(PAGE), "exec")
    (pattern,) = re.findall(r'f"shards/(.*?\.idx)"', code)
    for tar in motion_shards.glob("*.tar"):
        assert (motion_shards / pattern.replace("{Path(tar).stem}", tar.stem)).is_file()
    members = {m for sample in iter_samples(tar) for m in sample.members}
    assert set(re.findall(r'"(json|\w+\.mp4)"', code)) <= members


def wds2idx(tar: bytes) -> bytes:
    """What DALI's wds2idx (v1.2) writes of a tar, from the blocks of USTAR themselves.

    Plain files only, in order; a sample is the run of files that share what is before the first dot
    of their base name; hidden files do not count. Of each: extension, offset, size, full name.
    """
    samples: list[tuple[str, list[str]]] = []
    at = 0
    while at < len(tar) and tar[at] != 0:
        header = tar[at : at + 512]
        name = (
            (header[345:500].rstrip(b"\0") + b"/" + header[:100].rstrip(b"\0")).decode().strip("/")
        )
        size, kind = int(header[124:136].rstrip(b"\0 "), 8), header[156:157]
        folder, _, base = name.rpartition("/")
        stem, _, extension = base.partition(".")
        if kind in (b"0", b"\0") and stem:
            if not samples or samples[-1][0] != f"{folder}/{stem}":
                samples.append((f"{folder}/{stem}", []))
            samples[-1][1].append(f"{extension} {at + 512} {size} {name}")
        at += 512 + -(-size // 512) * 512
    lines = [f"v1.2 {len(samples)}", *(" ".join(files) for _, files in samples)]
    return "".join(f"{line}\n" for line in lines).encode("ascii")


def test_dalis_index_is_what_wds2idx_writes(motion_shards: Path) -> None:
    tars = sorted(motion_shards.glob("*.tar"))
    assert tars
    for path in tars:
        assert Layout(motion_shards).idx(path.stem).read_bytes() == wds2idx(path.read_bytes())
