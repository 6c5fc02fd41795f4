"""`flowprep show`: its json against the tar, its pictures as other readers see them."""

from __future__ import annotations

import json
import random
import shutil
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile_names import DX_PX

from flowprep.report.find import nearest
from flowprep.report.picture import GAP

Cli = Callable[..., Any]
HEIGHT, WIDTH, N = 48, 64, 6
RED = (255, 0, 0)
STORED_PX = round(DX_PX * 127 / 20) * 20 / 127
HALF_RED = (255, 255 - 255 * STORED_PX / (2 * DX_PX), 255 - 255 * STORED_PX / (2 * DX_PX))
"""Flow to the right that has about half the length of the rim."""


@pytest.fixture(scope="module")
def rows(made: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(made / "_flowprep" / "index.parquet").to_pylist()
    return found


@pytest.fixture(scope="module")
def row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return rows[5]


@pytest.fixture(scope="module")
def members(made: Path, row: dict[str, Any]) -> dict[str, bytes]:
    """Suffix -> bytes, by tarfile."""
    found = {}
    with tarfile.open(made / f"{row['shard']}.tar") as tar:
        for name in tar.getnames():
            file = tar.extractfile(name)
            if name.startswith(f"{row['key']}.") and file:
                found[name.removeprefix(f"{row['key']}.")] = file.read()
    return found


@pytest.fixture(scope="module")
def frames(members: dict[str, bytes]) -> list[np.ndarray]:
    with av.open(BytesIO(members["rgb.mp4"])) as video:
        return [f.to_ndarray(format="rgb24").astype(float) for f in video.decode(video=0)]


def _decoded(path: Path) -> tuple[list[np.ndarray], list[float]]:
    with av.open(str(path)) as video:
        found = list(video.decode(video=0))
        times = [float(frame.time or 0) for frame in found]
        return [frame.to_ndarray(format="rgb24").astype(float) for frame in found], times


def test_the_json_is_that_of_the_sample(
    cli: Cli,
    made: Path,
    rows: list[dict[str, Any]],
    row: dict[str, Any],
    members: dict[str, bytes],
) -> None:
    result = cli("show", made, row["key"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json.loads(members["json"])
    assert len(result.stdout.splitlines()) == len(json.loads(members["json"])) + 2
    everything = [cli("show", made, key["key"]).stdout for key in rows]
    assert all(line.isprintable() for text in everything for line in text.splitlines())


@pytest.mark.parametrize(("suffix", "off"), [(".mp4", 6.0), (".gif", 26.0)])
def test_what_plays_is_each_frame_beside_its_flow(
    suffix: str,
    off: float,
    cli: Cli,
    made: Path,
    row: dict[str, Any],
    frames: list[np.ndarray],
    tmp_path: Path,
) -> None:
    to = tmp_path / f"clip{suffix}"
    result = cli("show", made, row["key"], "--out", to, "--max-px", 2 * DX_PX)
    assert result.exit_code == 0, result.output
    pictures, times = _decoded(to)
    assert [path.name for path in tmp_path.iterdir()] == [to.name]
    assert len(pictures) == N - 1
    assert np.allclose(np.diff(times), 0.04)
    for i, picture in enumerate(pictures):
        errors = [np.abs(picture[:HEIGHT, :WIDTH] - frame).mean() for frame in frames]
        assert np.argmin(errors) == i
        assert errors[i] < off
        flow = picture[:HEIGHT, WIDTH + GAP : 2 * WIDTH + GAP]
        inner = flow[4:-4, 4:-4]
        assert np.abs(inner - HALF_RED).mean() < 6
        assert (picture[:HEIGHT, WIDTH + 2 : WIDTH + GAP - 2] > 235).all()


def test_a_contact_sheet_has_frames_above_their_flow_and_a_legend(
    cli: Cli, made: Path, row: dict[str, Any], frames: list[np.ndarray], tmp_path: Path
) -> None:
    to = tmp_path / "sheet.png"
    assert cli("show", made, row["key"], "--out", to).exit_code == 0
    picture = cv2.imread(str(to))[..., ::-1]
    red = np.argwhere((picture == RED).all(axis=-1))
    for frame in (frames[0], frames[-2]):
        cost = cv2.matchTemplate(
            picture.astype(np.float32), frame.astype(np.float32), cv2.TM_SQDIFF
        )
        _, _, (x, y), _ = cv2.minMaxLoc(cost)
        found = picture[y : y + HEIGHT, x : x + WIDTH].astype(float)
        assert np.abs(found - frame).mean() < 3
        below = ((red[:, 0] > y + HEIGHT) & (red[:, 0] < y + 2 * HEIGHT + 8)) & (
            (red[:, 1] >= x) & (red[:, 1] < x + WIDTH)
        )
        assert below.sum() == HEIGHT * WIDTH
    right = picture[:, picture.shape[1] // 2 :]
    assert len(np.unique(right.reshape(-1, 3), axis=0)) > 5000  # the wheel


def test_the_scale_is_that_of_the_clip_unless_it_is_given(
    cli: Cli, made: Path, row: dict[str, Any], tmp_path: Path
) -> None:
    for options, color in (([], RED), (["--max-px", 2 * DX_PX], HALF_RED)):
        to = tmp_path / "clip.mp4"
        assert cli("show", made, row["key"], "--out", to, *options).exit_code == 0
        flow = _decoded(to)[0][0][8 : HEIGHT - 8, WIDTH + GAP + 8 : 2 * WIDTH + GAP - 8]
        assert np.abs(flow.mean(axis=(0, 1)) - color).max() < 8


def test_a_long_clip_loses_frames_in_a_gif_and_says_so(
    cli: Cli, made: Path, row: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowprep.report.show.GIF_FRAMES", 3)
    result = cli("show", made, row["key"], "--out", tmp_path / "a.gif")
    assert "a.gif has one frame of 2, 3 in all" in result.stdout
    pictures, times = _decoded(tmp_path / "a.gif")
    assert len(pictures) == 3
    assert np.allclose(np.diff(times), 0.08)


def test_a_picture_is_told_in_a_line_and_not_buried_in_json(
    cli: Cli, made: Path, row: dict[str, Any], tmp_path: Path
) -> None:
    to = tmp_path / "a.png"
    said = cli("show", made, row["key"], "--out", to).output
    assert said.startswith(f"{to}: {row['key']}, {row['n_frames']} frames of {WIDTH} x {HEIGHT}; ")
    assert len(said.splitlines()) == 1


def test_an_option_that_would_do_nothing_is_refused(
    cli: Cli, made: Path, row: dict[str, Any]
) -> None:
    result = cli("show", made, row["key"], "--max-px", 5)
    assert (result.exit_code, "nothing without --out" in result.output) == (2, True)


@pytest.mark.parametrize(
    ("key", "options", "says"),
    [
        ("a.mp4", [], "a.mp4 has 2 clips"),
        ("q.mp4", [], "nearest: "),
        ("", [], "no sample ''"),
        ("\x1b[31m", [], "no sample '\\\\x1b[31m'"),
        ("KEY", ["--out", "x.webm"], "allowed: .png, .gif, .mp4"),
        ("KEY", ["--out", "/nowhere/x.png"], "there is no folder /nowhere"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    key: str, options: list[str], says: str, cli: Cli, made: Path, row: dict[str, Any]
) -> None:
    result = cli("show", made, row["key"] if key == "KEY" else key, *options)
    assert result.exit_code == 2
    assert says in result.stderr
    assert "Hint: " in result.stderr
    assert "Traceback" not in result.output
    assert not Path("x.webm").exists()


def test_the_clips_of_a_video_are_listed(cli: Cli, made: Path, rows: list[dict[str, Any]]) -> None:
    said = cli("show", made, "a.mp4").stderr
    for one in (row for row in rows if row["path"] == "a.mp4"):
        assert f"{one['key']}  {one['start_s']:.2f} to {one['end_s']:.2f} s" in said


def test_a_damaged_sample_is_an_error(
    cli: Cli, made: Path, row: dict[str, Any], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(made, tmp_path / "copy"))
    path = copy / f"{row['shard']}.tar"
    data = bytearray(path.read_bytes())
    start = row["flow_offset"]
    data[start : start + row["flow_size"]] = bytes(row["flow_size"])
    path.write_bytes(data)
    result = cli("show", copy, row["key"], "--out", tmp_path / "a.mp4")
    assert result.exit_code == 2
    assert row["key"] in result.stderr
    assert "flowprep verify" in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy"]


def test_the_nearest_names_are_found_among_many() -> None:
    rng = random.Random(0)
    names = [f"video_{i:05d}-{rng.randrange(16**10):010x}-0000" for i in range(20_000)]
    column = pa.chunked_array([names[:7000], names[7000:]])
    for wanted in rng.sample(names, 5):
        place = rng.randrange(len(wanted))
        mistyped = wanted[:place] + "!" + wanted[place + 1 :]
        assert nearest(column, mistyped)[0] == wanted
    assert nearest(column, "\N{SNOWMAN}" * 9) == []


def test_a_clip_that_failed_or_is_to_come_is_told_from_a_name_that_is_unknown(
    cli: Cli, tmp_path: Path
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    (source / "page.mp4").write_text("<html>")
    options = ("--engine", "constant", "--executor", "local")
    assert cli("extract", "--src", source, "--out", out, *options).exit_code == 3
    failed = cli("show", out, "page.mp4")
    assert failed.exit_code == 2
    assert "page.mp4 failed: not-a-video: " in failed.stderr
    assert "Hint: get the file again" in failed.stderr
    assert "no sample 'other.mp4'\n" in cli("show", out, "other.mp4").stderr
    (out / "_flowprep" / "dataset.json").unlink()
    assert "the dataset is not finished" in cli("show", out, "other.mp4").stderr
