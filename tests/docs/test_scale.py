"""docs/scale.md says what was measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "bench"))
import scale_page


def test_the_page_is_what_the_measurements_give() -> None:
    page = (scale_page.DOCS / "scale.md").read_text("utf-8")
    assert scale_page.page_of(page, json.loads(scale_page.RESULT.read_text("utf-8"))) == page


def test_it_takes_what_was_asked_for() -> None:
    """A minute and 2 GB to plan a million videos, ten seconds to go on with 20,000 shards done."""
    rows = json.loads(scale_page.RESULT.read_text("utf-8"))["rows"]["steps"]
    found = {(row["step"], row["videos"]): row for row in rows}
    plan, resume = (found[step, 1_000_000] for step in ("plan", "resume"))
    assert plan["wall_s"] < 60
    assert plan["peak_mb"] < 2000
    assert resume["wall_s"] < 10
