"""A bucket whose server fails gets the same bytes, or the run says why it stops and goes on later.

The long form, with sample videos, is `make test-s3`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cases import OPTIONS, Case, Site
from s3server import S3
from watching import Reader, dataset_in


@pytest.fixture
def case(s3: S3, dataset: dict[str, bytes], tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    case = Case(Site(s3, tmp_path, OPTIONS, dataset_in(dataset)), request.node.name)
    with Reader(s3, "data", f"{case.name}/", case.site.expected) as reader:
        yield case
    assert not reader.wrong
    s3.fault()


def test_a_bucket_that_fills_up_and_a_server_that_fails_change_no_byte(case: Case) -> None:
    half = sum(map(len, case.site.expected.values())) // 2
    case.stop("QuotaExceeded", "make room", room_bytes=half)
    assert case.marks() > 0
    shares = {"error": 0.03, "drop_upload": 0.03, "drop_answer": 0.02, "truncate": 0.03}
    case.finish(**shares, seed=7)
    assert sum(case.faults[kind] for kind in shares) >= 2, case.faults


def test_a_bucket_without_the_right_to_write_is_told_at_once(case: Case) -> None:
    case.stop("cannot be written", "Access Denied", "get the rights", deny="PUT DELETE")
    assert case.n_requests < 15
    assert not case.site.s3.keys("data", f"{case.name}/")
