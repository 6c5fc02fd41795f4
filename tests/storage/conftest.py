"""A real S3 server process, and flowprep run against it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="session")
def s3_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    pytest.importorskip("moto", reason="moto is not installed")
    from s3server import s3_server

    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(s3_session: Any) -> Any:
    """With the bucket `data`, and nothing that goes wrong."""
    s3_session.fault()
    return s3_session


@pytest.fixture(scope="session")
def source(s3_session: Any, tmp_path_factory: Any, make_video: Callable[..., Path]) -> Path:
    """Three videos on disk, the same in the bucket."""
    folder: Path = tmp_path_factory.mktemp("source")
    for number, name in enumerate(["a/one.mp4", "b/two words.mp4", "b/ä#?.mp4"]):
        path = make_video(folder / name, n_frames=5 + number)
        s3_session.client().upload_file(str(path), "data", f"videos/{name}")
    return folder


@pytest.fixture(scope="session")
def dataset(s3_session: Any, source: Path) -> dict[str, bytes]:
    """Of these videos, in the bucket below `set/`."""
    from cases import OPTIONS

    s3_session.fault()
    places = ("--src", "s3://data/videos", "--out", "s3://data/set")
    done = s3_session.flowprep("extract", *places, *OPTIONS)
    assert done.returncode == 0, done.stderr
    found: dict[str, bytes] = s3_session.objects("data", "set/")
    return found
