"""The bytes of a dataset do not depend on where its source lies."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


def test_a_failure_names_the_path_from_the_source(tmp_path: Path, cli: Callable[..., Any]) -> None:
    tables = []
    for place in ("here", "elsewhere/deep"):
        folder = tmp_path / place / "videos"
        folder.mkdir(parents=True)
        (folder / "broken.mp4").write_text("no video")
        (folder / "empty.mp4").touch()
        out = tmp_path / place / "shards"
        cli("extract", "--src", folder, "--out", out, "--engine", "constant", "--executor", "local")
        rows = pq.read_table(out / "_flowprep" / "failures.parquet").to_pylist()
        assert len(rows) == 2
        assert all(row["path"] in row["message"] for row in rows)
        assert not any(str(tmp_path) in row["message"] for row in rows)
        tables.append(rows)
        shutil.rmtree(folder)
    assert tables[0] == tables[1]
