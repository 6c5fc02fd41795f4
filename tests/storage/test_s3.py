"""A dataset in a bucket is the one on disk, and is verified, reported and gone on with there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MADE_HERE = {"config.toml", "manifest.parquet", "dataset.json", "runs.jsonl"}
"""Files that tell where the source is, or when."""
OPTIONS = ("--executor", "local", "--workers", "1", "--engine", "cpu", "--size", "32")


@pytest.fixture(scope="module")
def source(s3: Any, tmp_path_factory: Any, make_video: Callable[..., Path]) -> Path:
    """Three videos on disk, the same in the bucket."""
    folder: Path = tmp_path_factory.mktemp("source")
    for number, name in enumerate(["a/one.mp4", "b/two words.mp4", "b/ä#?.mp4"]):
        path = make_video(folder / name, n_frames=5 + number)
        s3.client().upload_file(str(path), "data", f"videos/{name}")
    return folder


@pytest.fixture(scope="module")
def dataset(s3: Any, source: Path) -> dict[str, bytes]:
    done = s3.flowprep("extract", "--src", "s3://data/videos", "--out", "s3://data/set", *OPTIONS)
    assert done.returncode == 0, done.stderr
    found: dict[str, bytes] = s3.objects("data", "set/")
    return found


def test_a_bucket_gets_the_bytes_that_a_folder_gets(
    s3: Any, source: Path, dataset: dict[str, bytes], tmp_path: Path
) -> None:
    done = s3.flowprep("extract", "--src", str(source), "--out", str(tmp_path / "set"), *OPTIONS)
    assert done.returncode == 0, done.stderr
    files = {p.relative_to(tmp_path / "set").as_posix(): p for p in (tmp_path / "set").rglob("*")}
    on_disk = {name: path.read_bytes() for name, path in files.items() if path.is_file()}
    assert on_disk.keys() == dataset.keys()
    assert sum(name.endswith(".tar") for name in on_disk) == 3
    compared = [name for name in on_disk if Path(name).name not in MADE_HERE]
    assert {n: on_disk[n] for n in compared} == {n: dataset[n] for n in compared}


def test_it_is_verified_and_reported_where_it_is(
    s3: Any, dataset: dict[str, bytes], tmp_path: Path
) -> None:
    done = s3.flowprep("verify", "s3://data/set", "--deep")
    assert (done.returncode, "no findings" in done.stdout) == (0, True), done.stderr
    done = s3.flowprep("report", "s3://data/set", "--out", str(tmp_path / "report.html"))
    assert done.returncode == 0, done.stderr
    assert "two words.mp4" in (tmp_path / "report.html").read_text()


def test_what_is_lost_is_found_and_made_again(s3: Any, dataset: dict[str, bytes]) -> None:
    shard = next(name for name in dataset if name.endswith(".tar")).removesuffix(".tar")
    client = s3.client()
    client.put_object(Bucket="data", Key=f"set/{shard}.tar", Body=dataset[f"{shard}.tar"][:-512])
    done = s3.flowprep("verify", "s3://data/set")
    assert (done.returncode, f"{shard}.tar" in done.stdout) == (1, True), done.stderr
    client.delete_object(Bucket="data", Key=f"set/_flowprep/shards/{shard}.json")
    before = len(s3.requests())
    done = s3.flowprep("extract", "--src", "s3://data/videos", "--out", "s3://data/set", *OPTIONS)
    assert done.returncode == 0, done.stderr
    made = s3.objects("data", "set/")
    same = [name for name in dataset if Path(name).name != "runs.jsonl"]
    assert {name: made[name] for name in same} == {name: dataset[name] for name in same}
    assert len(s3.requests()) - before < 150


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--src", "s3://nobody/videos", "--out", "s3://data/other"), "bucket does not exist"),
        (("--src", "s3://data/videos", "--out", "s3://nobody/other"), "bucket does not exist"),
        (("--src", "s3://data/nothing", "--out", "s3://data/other"), "no such file or folder"),
        (("--src", "s3://data/videos", "--out", "s3://data/videos"), "holds other files"),
    ],
)
def test_what_is_not_there_is_said_at_once(
    s3: Any, source: Path, arguments: tuple[str, ...], told: str
) -> None:
    done = s3.flowprep("extract", *arguments, *OPTIONS)
    assert (done.returncode, told in done.stderr) == (2, True), done.stderr
