"""A dataset in a bucket is the one on disk, and is verified, reported and gone on with there."""

from __future__ import annotations

from pathlib import Path

import pytest
from cases import OPTIONS
from s3server import S3

MADE_HERE = {"config.toml", "manifest.parquet", "dataset.json", "runs.jsonl"}
"""Files that tell where the source is, or when."""


def test_a_bucket_gets_the_bytes_that_a_folder_gets(
    s3: S3, source: Path, dataset: dict[str, bytes], tmp_path: Path
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
    s3: S3, dataset: dict[str, bytes], tmp_path: Path
) -> None:
    done = s3.flowprep("verify", "s3://data/set", "--deep")
    assert (done.returncode, "no findings" in done.stdout) == (0, True), done.stderr
    done = s3.flowprep("report", "s3://data/set", "--out", str(tmp_path / "report.html"))
    assert done.returncode == 0, done.stderr
    assert "two words.mp4" in (tmp_path / "report.html").read_text()


def test_what_is_lost_is_found_and_made_again(s3: S3, dataset: dict[str, bytes]) -> None:
    shard = next(name for name in dataset if name.endswith(".tar")).removesuffix(".tar")
    client = s3.client()
    client.put_object(Bucket="data", Key=f"set/{shard}.tar", Body=dataset[f"{shard}.tar"][:-512])
    done = s3.flowprep("verify", "s3://data/set")
    assert (done.returncode, f"{shard}.tar" in done.stdout) == (1, True), done.stderr
    client.delete_object(Bucket="data", Key=f"set/_flowprep/shards/{shard}.json")
    s3.fault()
    done = s3.flowprep("extract", "--src", "s3://data/videos", "--out", "s3://data/set", *OPTIONS)
    assert done.returncode == 0, done.stderr
    made = s3.objects("data", "set/")
    same = [name for name in dataset if Path(name).name != "runs.jsonl"]
    assert {name: made[name] for name in same} == {name: dataset[name] for name in same}
    assert sum("/lock" not in line and "heartbeats" not in line for line in s3.log()) < 75


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
    s3: S3, source: Path, arguments: tuple[str, ...], told: str
) -> None:
    done = s3.flowprep("extract", *arguments, *OPTIONS)
    assert (done.returncode, told in done.stderr) == (2, True), done.stderr
