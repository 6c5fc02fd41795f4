"""Bad input gets a clear error, and nothing beside it is lost."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from flowprep.clips import clips_of
from flowprep.config import Settings
from flowprep.decode.base import get_decoder
from flowprep.errors import RETRIABLE
from flowprep.records import Clip, Frames
from flowprep.run import extract as extract_module
from flowprep.run.encode import encode_stage
from flowprep.run.overlap import StageClock
from flowprep.run.probing import probe_one
from flowprep.run.stages import Broken, Chunk, ClipTask, decode_stage
from flowprep.shard.index import load_index
from flowprep.shard.reader import iter_samples
from flowprep.sources import read_source

pytestmark = pytest.mark.timeout(120)

MakeVideo = Callable[..., Path]
Cli = Callable[..., Result]
FAST = ("--engine", "constant", "--executor", "local", "--workers", 1, "--size", "native")
NAME_MAX = 255


def extract(cli: Cli, src: object, out: object, *options: object) -> Result:
    return cli("extract", "--src", src, "--out", out, *FAST, *options)


def events(result: Result) -> dict[str, dict[str, Any]]:
    """The last JSON line of each kind."""
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return {line["event"]: line for line in lines}


def failures(out: Path) -> dict[str, str]:
    """path -> reason, of failures.parquet."""
    rows = pq.read_table(out / "_flowprep" / "failures.parquet").to_pylist()
    assert all(row["retriable"] == (row["reason"] in RETRIABLE) for row in rows)
    return {row["path"]: row["reason"] for row in rows}


def samples(out: Path) -> dict[str, int]:
    """path -> frames, of index.parquet."""
    return {row.path: row.n_frames for _, row in load_index(out / "_flowprep" / "index.parquet")}


def tree(folder: Path) -> dict[str, str]:
    """Every file below `folder` with its hash; folders and odd files by their kind.

    Without the lists of the runs that made datasets.
    """
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "other"
        for path in sorted(set(folder.rglob("*")) - set(folder.rglob("runs.jsonl")))
    }


def assert_refused(result: Result, *parts: str) -> None:
    """Exit code 2, one Error and one Hint that hold all of `parts`, and no traceback."""
    assert result.exit_code == 2, result.output
    assert result.stderr.count("Error: ") - result.stderr.count("ZeroDivisionError: ") == 1
    assert "Hint: " in result.stderr or "Try 'flowprep" in result.stderr
    assert "Traceback" not in result.output
    for part in parts:
        assert part in result.stderr, f"{part!r} is not in {result.stderr}"


# --- files ------------------------------------------------------------------------------------


def audio_only(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.float32), "fltp", "mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@dataclass
class Museum:
    """A source with every kind of bad file beside good ones, and what was made of it."""

    src: Path
    out: Path
    bad: dict[str, str] = field(default_factory=dict)  # path -> reason
    good: set[str] = field(default_factory=set)
    calls: list[object] = field(default_factory=list)  # who was called by a playlist
    result: Result | None = None


GOOD_NAMES = (
    "good.mp4",
    "a b.mp4",
    "a_b.mp4",
    "a-b.mp4",
    "A B.MP4",
    "dots.in.the.name.mp4",
    "日本語 é ß.mp4",
    "two\nlines.mp4",
    "-rf.mp4",
    "[red]'quoted\"&;$(id).mp4",
    " .mp4",
    "one/same.mp4",
    "two/same.mp4",
    "n" * (NAME_MAX - 4) + ".mp4",
    "d" * 100 + "/" + "e" * 100 + "/" + "f" * 96 + ".mp4",
)


def add_good(museum: Museum, make_video: MakeVideo) -> None:
    for name in GOOD_NAMES:
        make_video(museum.src / name)
        museum.good.add(name)
    (museum.src / "link.mp4").symlink_to("good.mp4")
    museum.good.add("link.mp4")
    (museum.src / "one" / "up").symlink_to("..")  # a loop
    (museum.src / "ignored.txt").write_text("not a video by its name")
    (museum.src / ".hidden.mp4").write_text("hidden")


def add_bad(museum: Museum, make_video: MakeVideo, port: int) -> None:
    def add(name: str, reason: str, data: bytes | str | None = None) -> Path:
        path = museum.src / name
        museum.bad[name] = reason
        if data is not None:
            path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    whole = make_video(museum.out.parent / "whole.mp4", n_frames=40).read_bytes()
    matroska = make_video(museum.out.parent / "whole.mkv", n_frames=40).read_bytes()
    outside = make_video(museum.out.parent / "outside.mp4")
    add("text.mp4", "not-a-video", "this is a text\n" * 50)
    add("zero.mp4", "empty-file", b"")
    add("cut.mp4", "truncated", whole[: len(whole) // 2])
    add("cut.mkv", "truncated", matroska[: len(matroska) // 2])
    audio_only(add("audio.mp4", "no-video-stream"))
    make_video(add("one frame.mp4", "too-short"), n_frames=1)
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
    add("playlist.mp4", "not-a-video", playlist.format(outside))
    add("address.mp4", "not-a-video", playlist.format(f"http://127.0.0.1:{port}/a.ts"))
    add("concat.mp4", "not-a-video", f"ffconcat version 1.0\nfile '{outside}'\n")
    add("session.mp4", "not-a-video", f"v=0\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\n")
    add("dangling.mp4", "missing").symlink_to("nowhere.mp4")
    add("circle.mp4", "unreadable").symlink_to("circle.mp4")
    os.mkfifo(add("fifo.mp4", "unreadable"))
    (museum.src / os.fsdecode(b"latin-\xe9.mp4")).write_bytes(whole)
    museum.bad["latin-\\udce9.mp4"] = "unreadable"
    with_device = museum.src / "device.mp4"
    with suppress(OSError):
        os.mknod(with_device, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero: never ends
        museum.bad["device.mp4"] = "unreadable"


@pytest.fixture(scope="module")
def museum(
    tmp_path_factory: pytest.TempPathFactory, cli: Cli, make_video: MakeVideo
) -> Iterator[Museum]:
    folder = tmp_path_factory.mktemp("museum")
    museum = Museum(src=folder / "src", out=folder / "out")
    with socket.create_server(("127.0.0.1", 0)) as server:
        add_good(museum, make_video)
        add_bad(museum, make_video, server.getsockname()[1])
        museum.result = extract(cli, museum.src, museum.out, "--log-json")
        server.settimeout(0.1)
        with suppress(TimeoutError):
            museum.calls.append(server.accept()[1])
        yield museum


def test_more_failures_than_allowed_is_exit_code_3(museum: Museum, cli: Cli) -> None:
    assert museum.result is not None
    assert museum.result.exit_code == 3, museum.result.output
    n_bad = len(museum.bad)
    assert extract(cli, museum.src, museum.out, "--max-failures", n_bad - 1).exit_code == 3
    again = extract(cli, museum.src, museum.out, "--max-failures", n_bad)
    assert again.exit_code == 0
    assert "Traceback" not in museum.result.output + again.output
    assert f"{n_bad} failed: " in again.output


def test_planned_is_samples_and_failures(museum: Museum) -> None:
    assert museum.result is not None
    told = events(museum.result)["summary"]
    assert told["planned"] == len(museum.good) + len(museum.bad)
    assert told["samples"] == len(museum.good)
    assert told["failures"] == len(museum.bad)
    dataset = json.loads((museum.out / "_flowprep" / "dataset.json").read_text())
    assert (dataset["samples"], dataset["failures"]) == (len(museum.good), len(museum.bad))


def test_each_bad_file_is_listed_with_its_reason(museum: Museum) -> None:
    assert failures(museum.out) == museum.bad
    rows = pq.read_table(museum.out / "_flowprep" / "failures.parquet").to_pylist()
    assert all(row["message"] and row["stage"] == "probe" for row in rows)


def test_the_good_videos_beside_them_come_out_whole(museum: Museum, cli: Cli) -> None:
    assert samples(museum.out) == dict.fromkeys(museum.good, 8)
    stored = {
        (sample.members["rgb.mp4"], sample.members["flow.mp4"])
        for tar in museum.out.glob("*.tar")
        for sample in iter_samples(tar)
    }
    assert len(stored) == 1  # they are copies of one video
    verified = cli("verify", museum.out, "--deep")
    assert verified.exit_code == 0, verified.output


def test_keys_are_safe_on_any_file_system(museum: Museum) -> None:
    keys = [row.key for _, row in load_index(museum.out / "_flowprep" / "index.parquet")]
    assert len(set(keys)) == len(museum.good)
    for key in keys:
        assert 0 < len(key) <= 90
        assert not set(key) - set("abcdefghijklmnopqrstuvwxyz0123456789_-")


def test_a_playlist_is_refused_and_nobody_is_called(museum: Museum) -> None:
    for name in ("playlist.mp4", "address.mp4", "concat.mp4", "session.mp4"):
        assert failures(museum.out)[name] == "not-a-video"
    assert museum.calls == []


def test_the_list_of_failures_names_path_reason_and_message(museum: Museum, cli: Cli) -> None:
    shown = extract(cli, museum.src, museum.out).output
    assert "zero.mp4: empty-file: " in shown
    assert "one frame.mp4: too-short: 1 of 1 frames left, a flow needs two" in shown


WITHOUT_PRIVILEGES = """
import ctypes, os, sys
for capability in (1, 2) if os.geteuid() == 0 else ():  # read and write whatever the mode says
    if ctypes.CDLL(None).prctl(24, capability, 0, 0, 0):
        sys.exit(77)
os.execv(sys.executable, [sys.executable, "-m", "flowprep", *sys.argv[1:]])
"""


def run_unprivileged(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The CLI bound by the modes of files, also for root."""
    command = [sys.executable, "-c", WITHOUT_PRIVILEGES, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    if done.returncode == 77:
        pytest.skip("root cannot give up its privileges here")
    return done


def test_an_unreadable_file_is_a_failure(tmp_path: Path, cli: Cli, make_video: MakeVideo) -> None:
    src, out = tmp_path / "src", tmp_path / "out"
    make_video(src / "good.mp4")
    make_video(src / "locked.mp4").chmod(0)
    result = run_unprivileged("extract", "--src", src, "--out", out, *FAST)
    assert result.returncode == 3, result.stderr
    assert failures(out) == {"locked.mp4": "unreadable"}
    assert "locked.mp4: unreadable: " in result.stdout
    assert "Permission denied" in result.stdout
    assert samples(out) == {"good.mp4": 8}
    assert cli("verify", out, "--deep").exit_code == 0


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, make_video: MakeVideo) -> None:
    """Its videos would be missing without a word."""
    make_video(tmp_path / "src" / "open" / "a.mp4")
    locked = make_video(tmp_path / "src" / "locked" / "b.mp4").parent
    locked.chmod(0)
    out = tmp_path / "out"
    result = run_unprivileged("extract", "--src", tmp_path / "src", "--out", out, *FAST)
    locked.chmod(0o755)
    assert result.returncode == 2
    assert f"Error: {locked}: Permission denied\nHint: " in result.stderr
    assert not out.exists()


def test_out_that_is_not_writable_is_an_error(tmp_path: Path, make_video: MakeVideo) -> None:
    make_video(tmp_path / "src" / "a.mp4")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    for out in (closed, closed / "new"):
        result = run_unprivileged("extract", "--src", tmp_path / "src", "--out", out, *FAST)
        assert result.returncode == 2
        message = f"Error: --out {out}: Permission denied\nHint: give a folder you can write to\n"
        assert result.stderr == message
    assert list(closed.iterdir()) == []


# --- the disk ---------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """small_disk("2m") mounts a file system of that size; a second call changes its size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def mount(size: str) -> Path:
        nonlocal mounted
        how = f"remount,size={size}" if mounted else f"size={size}"
        command = ["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            pytest.skip(f"cannot mount a small disk here: {error}")
        if done.returncode:
            pytest.skip(f"cannot mount a small disk here: {done.stderr.strip()}")
        mounted = True
        return folder

    yield mount
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


LOSSLESS = ("--rgb-codec", "ffv1")


@pytest.fixture(scope="module")
def noise_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos that do not compress: 2.4 MB of RGB each."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("noise")
    for name in "ab":
        with av.open(str(folder / f"{name}.mkv"), "w") as container:
            stream = container.add_stream("ffv1", rate=25)
            stream.width, stream.height, stream.pix_fmt = 256, 192, "bgr0"
            for _ in range(16):
                rgb = rng.integers(0, 256, (192, 256, 3), np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, "rgb24")))
            container.mux(stream.encode())
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, cli: Cli, noise_folder: Path) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert extract(cli, noise_folder, out, *LOSSLESS).exit_code == 0
    return out


@pytest.mark.parametrize(
    ("size", "n_shards", "where"),
    [("1500k", 0, "encoder"), ("3500k", 0, "tar"), ("6000k", 1, "second shard")],
)
def test_a_disk_that_fills_up_inside_a_shard(
    noise_folder: Path,
    undisturbed: Path,
    small_disk: Callable[[str], Path],
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    size: str,
    n_shards: int,
    where: str,
) -> None:
    monkeypatch.setattr(extract_module, "SPARE_BYTES", 0)  # else it is refused before the start
    out = small_disk(size) / "out"
    result = extract(cli, noise_folder, out, *LOSSLESS)
    assert_refused(result, "No space left on device", "make room and run the same command again")
    assert len(list(out.glob("*.tar"))) == n_shards, where
    unfinished = cli("verify", out)
    assert unfinished.exit_code == 1
    assert "incomplete" in unfinished.output

    small_disk("100m")
    again = extract(cli, noise_folder, out, *LOSSLESS)
    assert again.exit_code == 0, again.output
    assert tree(out) == tree(undisturbed)


class FailingBuilder:
    """Cannot write, for a reason of its own."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def add(self, *_: object) -> None:
        raise self.error

    def abort(self) -> None:
        pass


@pytest.fixture
def chunk() -> Chunk:
    clip = Clip(
        key="a-0123456789-0000",
        path="a.mp4",
        number=0,
        label="",
        split="train",
        source_index=np.arange(2),
    )
    frames = Frames(np.zeros((2, 4, 4, 3), np.uint8), np.arange(2.0), np.arange(2))
    task = ClipTask(clip=clip, media=None, size_bytes=1, mtime_ns=1)
    gray = np.zeros((2, 4, 4), np.uint8)
    return Chunk(task=task, frames=frames, gray=gray, is_first=True, is_last=True)


def test_a_full_disk_is_no_fault_of_the_clip(chunk: Chunk) -> None:
    """It would be listed as failed for good, while making room is all it needs."""
    full = OSError(errno.ENOSPC, "No space left on device")
    builder: Any = FailingBuilder(full)
    made = encode_stage([chunk], lambda _: builder, StageClock())
    with pytest.raises(OSError, match="No space left"):
        next(made)


def test_what_else_a_codec_raises_costs_its_clip(chunk: Chunk) -> None:
    builder: Any = FailingBuilder(ValueError("odd size"))
    (broken,) = encode_stage([chunk], lambda _: builder, StageClock())
    assert isinstance(broken, Broken)
    assert (broken.stage, broken.error.reason) == ("encode", "encode-error")
    assert "ValueError: odd size" in broken.error.message


class FailingDecoder:
    """Gives one frame; then stops, or raises what nobody foresaw."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def frames(self, *_: object) -> Iterator[np.ndarray]:
        yield np.zeros((48, 64, 3), np.uint8)
        if self.error:
            raise self.error


@pytest.mark.parametrize(
    ("error", "reason", "told"),
    [
        (MemoryError("40 GB"), "out-of-memory", "MemoryError: 40 GB"),
        (None, "frames-missing", "1 of 8 frames"),
    ],
)
def test_what_a_decoder_does_costs_its_clip(
    tmp_path: Path, make_video: MakeVideo, error: Exception | None, reason: str, told: str
) -> None:
    """Once, a picture too large for the memory cost its whole shard."""
    path = make_video(tmp_path / "a.mp4")
    (clip,) = clips_of(probe_one(tmp_path, read_source(str(path)).videos[0]), Settings())
    info, media = path.stat(), get_decoder().probe(str(path))
    task = ClipTask(clip=clip, media=media, size_bytes=info.st_size, mtime_ns=info.st_mtime_ns)
    decoder: Any = FailingDecoder(error)
    (broken,) = decode_stage([task], tmp_path, Settings(), decoder, StageClock())
    assert isinstance(broken, Broken)
    assert (broken.stage, broken.error.reason) == ("decode", reason)
    assert told in broken.error.message


def test_too_little_room_is_told_before_the_start(
    noise_folder: Path, small_disk: Callable[[str], Path], cli: Cli
) -> None:
    out = small_disk("40m") / "out"
    result = extract(cli, noise_folder, out)
    assert_refused(result, f"--out {out}", "0.04 GB are free", "0.07 GB will be needed")
    assert not out.exists() or not list(out.glob("*.tar"))


# --- what the user asks for -------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_videos(tmp_path_factory: pytest.TempPathFactory, make_video: MakeVideo) -> Path:
    folder = tmp_path_factory.mktemp("two")
    make_video(folder / "a.mp4")
    make_video(folder / "b.mp4")
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, cli: Cli, two_videos: Path) -> Path:
    out = tmp_path_factory.mktemp("dataset") / "out"
    assert extract(cli, two_videos, out).exit_code == 0
    return out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--bound", 10), "--bound 20 -> 10"),
        (("--fps", "native"), "--fps 25 -> native"),
        (("--size", 32), "--size native -> 32"),
        (("--engine-param", "dx=2"), "--engine-param dx unset -> 2"),
    ],
)
def test_a_rerun_with_other_settings_names_the_difference(
    cli: Cli, two_videos: Path, dataset: Path, options: tuple[object, ...], told: str
) -> None:
    before = tree(dataset)
    result = extract(cli, two_videos, dataset, *options)
    assert_refused(result, str(dataset), told, "another --out")
    assert tree(dataset) == before


REFUSED: list[tuple[tuple[object, ...], tuple[str, ...]]] = [
    (("--fps", -1), ("--fps -1", "0.001", "1000", "native")),
    (("--fps", "nan"), ("--fps nan", "native")),
    (("--fps", "inf"), ("--fps inf", "native")),
    (("--fps", "1e12"), ("--fps 1e+12", "1000")),
    (("--fps", "fast"), ("--fps", "'fast'", "native")),
    (("--stride", 2), ("--stride 2", "--fps 25", "--fps native")),
    (("--stride", 0, "--fps", "native"), ("--stride 0", "from 1 up")),
    (("--size", 3), ("--size 3", "8", "4096", "native")),
    (("--size", 100_000), ("--size 100000", "4096")),
    (("--clip-frames", 1), ("--clip-frames 1", "2 or more")),
    (("--clip-frames", -4), ("--clip-frames -4", "from 0 up")),
    (("--clip-stride", 4), ("--clip-stride", "--clip-frames")),
    (("--clip-max", 0), ("--clip-max 0", "from 1 up")),
    (("--clip-max", "nan"), ("--clip-max nan", "from 1 up")),
    (("--shard-frames", 1), ("--shard-frames 1", "from 2 up")),
    (("--bound", 0), ("--bound 0", "above 0 and at most 1024")),
    (("--bound", "nan"), ("--bound nan", "above 0 and at most 1024")),
    (("--flow-map", "int16"), ("x264-flow", "--flow-map int16", "--flow-codec ffv1-flow16")),
    (("--flow-codec", "ffv1-flow16"), ("ffv1-flow16", "--flow-map symmetric", "x264-flow")),
    (("--flow-codec", "mp9"), ("--flow-codec mp9", "x264-flow", "ffv1-flow")),
    (("--rgb-codec", "x264-flow"), ("--rgb-codec x264-flow", "RGB", "x264", "ffv1")),
    (("--rgb-codec", "mp9"), ("--rgb-codec mp9", "x264", "ffv1")),
    (("--engine", "magic"), ("'magic'", "allowed: auto", "opencv-cpu")),
    (("--engine-param", "nonsense=3"), ("'constant'", "nonsense")),
    (("--engine-param", "threads=3"), ("threads = 3",)),
    (("--engine-param", "device=0"), ("device = 0",)),
    (("--engine-param", "n_warps"), ("'n_warps'", "name=value")),
    (("--engine-param", "=3"), ("= 3", "name=value")),
    (("--recipe", "nope"), ("'nope'", "ucf101", ".toml")),
    (("--recipe", "./nope.toml"), ("nope.toml", "no such file")),
    (("--executor", "slurm"), ("--executor", "'slurm'", "ray", "local")),
    (("--max-failures", -1), ("--max-failures", "-1")),
]


@pytest.mark.parametrize(("options", "told"), REFUSED, ids=lambda v: " ".join(map(str, v)))
def test_an_option_that_cannot_be_used(
    cli: Cli, two_videos: Path, tmp_path: Path, options: tuple[object, ...], told: tuple[str, ...]
) -> None:
    assert_refused(extract(cli, two_videos, tmp_path / "out", *options), *told)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("parameter", "told"),
    [
        ("n_scales=0", ("n_scales = 0", "whole number from 1 to", "default 5")),
        ("n_warps=2.5", ("n_warps = 2.5", "whole number")),
        ("n_warps=many", ("n_warps = 'many'", "whole number")),
        ("tau=nan", ("tau = nan", "from 1e-6")),
        ("nonsense=3", ("nonsense = 3", "n_scales", "tau")),
    ],
)
def test_a_parameter_that_the_engine_refuses(
    cli: Cli, two_videos: Path, tmp_path: Path, parameter: str, told: tuple[str, ...]
) -> None:
    engine = ("--engine", "opencv-cpu", "--engine-param", parameter)
    assert_refused(extract(cli, two_videos, tmp_path / "out", *engine), *told)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("src", "told"),
    [
        ("{}/nowhere", ("{}/nowhere", "no such file or folder")),
        ("{}/empty", ("{}/empty", "no videos in it", ".mp4")),
        ("{}/notes.txt", ("{}/notes.txt", ".mp4", ".csv", ".parquet", ".jsonl")),
        ("{}/fifo.csv", ("{}/fifo.csv", "not a list")),
        ("", ("--src is empty",)),
        ("nope://bucket/videos", ("nope://bucket/videos", "Protocol not known")),
    ],
)
def test_a_source_that_is_none(cli: Cli, tmp_path: Path, src: str, told: tuple[str, ...]) -> None:
    (tmp_path / "empty" / "folders only").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("a.mp4\n")
    os.mkfifo(tmp_path / "fifo.csv")
    result = extract(cli, src.format(tmp_path), tmp_path / "out")
    assert_refused(result, *[part.format(tmp_path) for part in told])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("out", "told"),
    [
        ("nope://bucket/set", ("nope://bucket/set", "Protocol not known")),
        ("gs://", ("--out gs:// names no bucket", "gs://BUCKET/FOLDER")),
        ("", ("--out is empty",)),
        ("{}/taken", ("--out {}/taken", "holds other files", "new or empty")),
        ("{}/taken/thesis.tex", ("{}/taken/thesis.tex", "is a file")),
        ("{}/taken/thesis.tex/out", ("{}/taken/thesis.tex/out", "is a file")),
    ],
)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["run", "dry"])
def test_an_out_that_is_none(
    cli: Cli,
    two_videos: Path,
    tmp_path: Path,
    out: str,
    told: tuple[str, ...],
    dry: tuple[str, ...],
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("years of work")
    before = tree(tmp_path)
    result = extract(cli, two_videos, out.format(tmp_path), *dry)
    assert_refused(result, *[part.format(tmp_path) for part in told])
    assert tree(tmp_path) == before


def test_an_empty_out_of_the_user_stays_when_a_run_is_refused(
    cli: Cli, two_videos: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    assert_refused(extract(cli, two_videos, tmp_path / "out", "--engine", "magic"), "magic")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_error_that_nobody_foresaw_shows_a_traceback_only_with_debug(
    cli: Cli, two_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr(extract_module, "prepare", broken)
    assert_refused(
        extract(cli, two_videos, tmp_path / "out"), "ZeroDivisionError: surprise", "--debug"
    )
    with pytest.raises(ZeroDivisionError, match="surprise"):
        cli("--debug", "extract", "--src", two_videos, "--out", tmp_path / "out", *FAST)


# --- lists ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "file,label\na.mp4,x\n", ("a.csv", "no column 'path'", "file, label")),
        ("a.csv", "path;label\na.mp4;x\n", ("a.csv", "no column 'path'", "path;label")),
        ("a.csv", "", ("a.csv", "no videos in it", "column path")),
        ("a.csv", "path,label\n", ("a.csv", "no videos in it", "column path")),
        ("a.csv", "path,label\na.mp4,x\nb.mp4,\n", ("1 of 2", "'b.mp4'", "--labels none")),
        ("a.csv", "path,label\na.mp4,x\nb.mp4\n", ("1 of 2", "'b.mp4'", "--labels none")),
        ("a.csv", "path,label\na.mp4,x,y\n", ("a.csv", "row 1", "more values")),
        ("a.csv", 'path,label\n"a.mp4,x\n', ("a.csv", "unexpected end of data")),
        ("a.csv", 'path,label\na.mp4,"x\ny"\n', ("'x\\ny'", "'a.mp4'", "line break")),
        ("a.csv", "path,split\na.mp4,Train\n", ("a.csv, row 1", "'Train'", "a-z, 0-9 and _")),
        ("a.csv", "path,split\na.mp4,../x\n", ("a.csv, row 1", "'../x'")),
        ("a.csv", "path,start_s,end_s\na.mp4,3,2\n", ("row 1", "3.0", "2.0", "start_s < end_s")),
        ("a.csv", "path,start_s,end_s\na.mp4,2,2\n", ("row 1", "start_s < end_s")),
        ("a.csv", "path,start_s\na.mp4,-1\n", ("row 1", "-1.0", "0 <= start_s")),
        ("a.csv", "path,start_s\na.mp4,soon\n", ("row 1", "'soon'", "seconds")),
        ("a.csv", "path,end_s\na.mp4,nan\n", ("row 1", "'nan'", "seconds")),
        ("a.csv", "path,label\na.mp4,x\na.mp4,y\n", ("'a.mp4'", "twice", "train/x", "train/y")),
        ("a.csv", "path,label\na.mp4,x\n./a.mp4,y\n", ("'a.mp4'", "twice")),
        ("a.csv", "path\nnope://host/a.mp4\n", ("nope://host/a.mp4", "Protocol not known")),
        ("a.csv", "path\na\0.mp4\n", ("a.csv, row 1", "not a path")),
        ("a.csv", "path,label\na.mp4,\udce9\n", ("a.csv", "UTF-8")),
        ("a.csv", f"path,label\na.mp4,{'x' * 200_000}\n", ("a.csv", "field larger")),
        ("a.jsonl", '{"path":"a.mp4"}\n{"path":\n', ("a.jsonl", "line 2", "not JSON")),
        ("a.jsonl", '["a.mp4"]\n', ("a.jsonl, row 1", "no path")),
        ("a.jsonl", '{"path":["a.mp4"]}\n', ("a.jsonl, row 1", "['a.mp4']")),
        ("a.jsonl", '{"path":"a.mp4","label":{}}\n', ("a.jsonl, row 1", "label {}")),
        ("a.jsonl", '{"path":"a.mp4","end_s":true}\n', ("a.jsonl, row 1", "True", "seconds")),
        ("a.jsonl", '{"path":"a.mp4","end_s":[1]}\n', ("a.jsonl, row 1", "end_s", "seconds")),
        ("a.parquet", "PAR1 and then nothing", ("a.parquet", "cannot read")),
    ],
)
def test_a_list_that_cannot_be_used(
    cli: Cli, make_video: MakeVideo, tmp_path: Path, name: str, text: str, told: tuple[str, ...]
) -> None:
    make_video(tmp_path / "a.mp4")
    (tmp_path / name).write_text(text, errors="surrogateescape", newline="")
    result = extract(cli, tmp_path / name, tmp_path / "out")
    assert_refused(result, *told)
    assert not (tmp_path / "out").exists()


def test_a_row_whose_file_is_missing_costs_only_itself(
    cli: Cli, make_video: MakeVideo, tmp_path: Path
) -> None:
    make_video(tmp_path / "a.mp4")
    make_video(tmp_path / "é b.mp4")
    text = "\ufeffpath, label\na.mp4, één\né b.mp4,zwei\ngone.mp4,zwei\na.mp4/b.mp4,zwei\n"
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    out = tmp_path / "out"
    result = extract(cli, tmp_path / "list.csv", out)
    assert result.exit_code == 3, result.output
    assert failures(out) == {"gone.mp4": "missing", "a.mp4/b.mp4": "missing"}
    assert samples(out) == {"a.mp4": 8, "é b.mp4": 8}
    assert (out / "_flowprep" / "classes.txt").read_text(encoding="utf-8") == "zwei\néén\n"
    assert "gone.mp4: missing: no such file" in result.output
    assert cli("verify", out, "--deep").exit_code == 0

    make_video(tmp_path / "gone.mp4")
    retried = extract(cli, tmp_path / "list.csv", out, "--retry-failed", "--max-failures", 1)
    assert retried.exit_code == 0, retried.output
    assert failures(out) == {"a.mp4/b.mp4": "missing"}
    assert samples(out) == {"a.mp4": 8, "é b.mp4": 8, "gone.mp4": 8}


def test_parquet_and_json_lines_give_the_same_plan_as_csv(
    cli: Cli, make_video: MakeVideo, tmp_path: Path
) -> None:
    make_video(tmp_path / "a.mp4")
    make_video(tmp_path / "b.mp4")
    rows: list[dict[str, Any]] = [
        {"path": "a.mp4", "label": "x", "split": "val", "start_s": None, "end_s": None},
        {"path": "b.mp4", "label": "y", "split": "train", "start_s": 0.08, "end_s": 0.24},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "l.parquet")
    (tmp_path / "l.jsonl").write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    values = "\n".join(",".join("" if v is None else str(v) for v in r.values()) for r in rows)
    (tmp_path / "l.csv").write_text("path,label,split,start_s,end_s\n" + values)
    plans = []
    for suffix in ("csv", "parquet", "jsonl"):
        place = tmp_path / f"l.{suffix}"
        result = extract(cli, place, tmp_path / "out", "--dry-run", "--log-json")
        assert result.exit_code == 0, result.output
        plan = events(result)["plan"]
        plans.append({k: plan[k] for k in ("videos", "clips", "frames", "flows", "refused")})
    assert plans == 3 * [{"videos": 2, "clips": 2, "frames": 8 + 4, "flows": 7 + 3, "refused": 0}]
