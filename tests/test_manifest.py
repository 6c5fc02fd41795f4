"""The cache of what probing found: round trip, hits and misses, and a probe that is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowprep import manifest
from flowprep.manifest import Manifest
from flowprep.records import Media, Video
from flowprep.run.probing import ProbeLimits, probe_all
from flowprep.run.refresh import refresh as refreshed

MakeVideo = Callable[..., Path]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
INT64 = st.integers(-(2**62), 2**62)


@st.composite
def medias(draw: st.DrawFn) -> Media:
    pts = sorted(draw(st.sets(INT64, min_size=1, max_size=20)))
    return Media(
        container=draw(TEXT),
        codec=draw(TEXT),
        pix_fmt=draw(TEXT),
        width=draw(st.integers(1, 16384)),
        height=draw(st.integers(1, 16384)),
        rotation_deg=draw(st.sampled_from([0, 90, 180, 270])),
        sar=draw(st.fractions(min_value=Fraction(1, 100), max_value=100)),
        transfer=draw(TEXT),
        time_base=draw(st.sampled_from([Fraction(1, 25), Fraction(1001, 30000)])),
        pts=np.array(pts, np.int64),
        end_pts=pts[-1] + 1,
    )


@st.composite
def videos(draw: st.DrawFn) -> Video:
    seconds = st.none() | st.floats(0, 1e6)
    return Video(
        path=draw(TEXT),
        size_bytes=draw(st.integers(-1, 2**40)),
        mtime_ns=draw(INT64),
        label=draw(TEXT),
        split=draw(st.sampled_from(["train", "val"])),
        range_start_s=draw(seconds),
        range_end_s=draw(seconds),
        reason=draw(st.sampled_from(["", "truncated"])),
        message=draw(TEXT),
        media=draw(st.none() | medias()),
    )


def plain(video: Video) -> tuple[object, ...]:
    """All that a Video holds, comparable."""
    of = video.media
    media = None if of is None else {**of.__dict__, "pts": of.pts.tolist()}
    return (*(v for k, v in video.__dict__.items() if k != "media"), media)


@settings(max_examples=60, deadline=None)
@given(st.lists(videos(), max_size=4))
def test_what_is_saved_is_what_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, many: list[Video]
) -> None:
    path = tmp_path_factory.mktemp("manifest") / "manifest.parquet"
    path.write_bytes(manifest.to_bytes(many))
    loaded = manifest.load(path)
    assert [plain(v) for v in loaded] == [plain(v) for v in many]
    assert all(v.media is None or v.media.pts.dtype == np.int64 for v in loaded)


def test_the_same_videos_give_the_same_bytes() -> None:
    many = [found(video(f"{i}.mp4", mtime_ns=i)) for i in range(50)]
    assert manifest.to_bytes(many) == manifest.to_bytes([replace(v) for v in many])


@settings(max_examples=60, deadline=None)
@given(st.lists(videos(), max_size=3), st.data())
def test_videos_of_a_kind_are_those_of_equal_values(few: list[Video], data: st.DataObject) -> None:
    many = data.draw(st.lists(st.sampled_from(few), max_size=12)) if few else []
    firsts, kinds = Manifest.of(many).alike("label", "width", "sar")
    values = [(v.label, v.media and v.media.width, v.media and v.media.sar) for v in many]
    assert [values[firsts[kind]] for kind in kinds] == values
    assert len(firsts) == len(set(values))


def test_there_is_nothing_in_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    assert len(manifest.load(tmp_path / "manifest.parquet")) == 0


# --- the cache --------------------------------------------------------------------------------


def video(path: str = "a.mp4", **fields: object) -> Video:
    values: dict[str, object] = {"size_bytes": 10, "mtime_ns": 1}
    return Video(path=path, **{**values, **fields})  # type: ignore[arg-type]


def found(one: Video, width: int = 64) -> Video:
    media = Media(
        container="mov",
        codec="h264",
        pix_fmt="yuv420p",
        width=width,
        height=48,
        rotation_deg=0,
        sar=Fraction(1),
        transfer="",
        time_base=Fraction(1, 25),
        pts=np.arange(3),
        end_pts=3,
    )
    return replace(one, media=media)


class Prober:
    """Finds 32 pixels wide videos, backwards, and notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, many: list[Video]) -> Iterable[Video]:
        self.asked = [v.path for v in many]
        return [found(v, width=32) for v in reversed(many)]


def refresh(
    now: list[Video], cached: list[Video], again: bool = False
) -> tuple[list[Video], list[str]]:
    prober = Prober()
    told = refreshed(now, Manifest.of(cached), prober, lambda _: None, again=again)
    return list(told), prober.asked


def widths(many: list[Video]) -> list[int | None]:
    return [v.media.width if v.media else None for v in many]


def test_a_file_of_the_same_size_and_time_is_not_probed_again() -> None:
    result, asked = refresh([video("a"), video("b")], [found(video("a"))])
    assert asked == ["b"]
    assert [v.path for v in result] == ["a", "b"]
    assert widths(result) == [64, 32]


@pytest.mark.parametrize("now", [video(size_bytes=11), video(mtime_ns=2)])
def test_a_file_of_another_size_or_time_is_probed_again(now: Video) -> None:
    result, asked = refresh([now], [found(video())])
    assert asked == ["a.mp4"]
    assert widths(result) == [32]


def test_labels_and_splits_are_those_of_now() -> None:
    cached = found(video(label="old", split="val"))
    (result,), asked = refresh([video(label="new", split="train")], [cached])
    assert (asked, result.label, result.split) == ([], "new", "train")


def test_a_file_that_could_not_be_used_is_probed_again_only_when_asked() -> None:
    broken = video(reason="truncated", message="cut")
    (result,), asked = refresh([video()], [broken])
    assert (asked, result.reason, result.message) == ([], "truncated", "cut")
    (result,), asked = refresh([video()], [broken], again=True)
    assert (asked, result.reason, widths([result])) == (["a.mp4"], "", [32])
    (result,), asked = refresh([video()], [found(video())], again=True)
    assert (asked, widths([result])) == ([], [64])


def test_a_missing_file_is_not_probed_and_not_taken_from_the_cache() -> None:
    missing = video(size_bytes=-1, mtime_ns=-1, reason="missing", message="no such file")
    (result,), asked = refresh([missing], [found(video())])
    assert (asked, result.reason, result.media) == ([], "missing", None)


def test_ranges_of_one_file_share_one_probe() -> None:
    now = [video(range_end_s=1.0), video(range_start_s=1.0)]
    result, asked = refresh(now, [])
    assert asked == ["a.mp4"]
    assert widths(result) == [32, 32]
    assert [v.range_start_s for v in result] == [None, 1.0]


KILLED = """
import os, signal, sys, time
from pathlib import Path
from flowprep import manifest
from flowprep.run import refresh
from flowprep.records import Video
from flowprep.run.probing import probe_one
from flowprep.sources import read_source

root, saved, count = map(Path, sys.argv[1:])
refresh.SAVE_EVERY_S = 0.0

def probe(videos):
    for number, video in enumerate(videos):
        if number == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        with count.open("a") as file:
            file.write(video.path + "\\n")
        yield probe_one(root, video)
        time.sleep(0.1)  # so that saving is a small part of the time, as it is with many files

manifest.to_bytes([])  # the first call is slow
def save(videos):
    saved.with_suffix(".new").write_bytes(manifest.to_bytes(videos))
    saved.with_suffix(".new").replace(saved)

save(refresh.refresh(read_source(str(root)).videos, manifest.load(saved), probe, save))
"""


def test_a_killed_probe_goes_on_where_it_was(tmp_path: Path, make_video: MakeVideo) -> None:
    names = [f"{i:02d}.mp4" for i in range(9)]
    for name in names:
        make_video(tmp_path / "src" / name)
    saved, count = tmp_path / "manifest.parquet", tmp_path / "count"
    codes: list[int] = []
    while not codes or codes[-1] == -signal.SIGKILL:
        assert len(codes) < len(names), "it makes no progress"
        script = [sys.executable, "-c", KILLED, str(tmp_path / "src"), str(saved), str(count)]
        codes.append(subprocess.run(script, check=False).returncode)
    assert codes[-1] == 0
    probed = count.read_text().split()
    assert sorted(set(probed)) == names
    n_kills = len(codes) - 1
    assert n_kills >= 1
    assert len(probed) <= len(names) + 4 * n_kills  # of five files, one at least was saved
    assert [v.path for v in manifest.load(saved) if v.media] == names


# --- probing ----------------------------------------------------------------------------------


@pytest.fixture
def spread(tmp_path: Path, make_video: MakeVideo) -> tuple[Path, list[Video]]:
    """More files than are probed in one process, one of them empty."""
    for i in range(5):
        make_video(tmp_path / f"{i}.mp4")
    (tmp_path / "5.mp4").write_bytes(b"")
    return tmp_path, [video(f"{i}.mp4") for i in range(6)]


def test_probing_in_processes_and_in_place_find_the_same(spread: tuple[Path, list[Video]]) -> None:
    root, many = spread
    parallel = sorted(probe_all(root, ProbeLimits(n_workers=2), many), key=lambda v: v.path)
    alone = [next(iter(probe_all(root, ProbeLimits(n_workers=1), [v]))) for v in many]
    assert [plain(v) for v in parallel] == [plain(v) for v in alone]
    assert [v.reason for v in parallel] == ["", "", "", "", "", "empty-file"]
