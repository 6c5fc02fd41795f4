"""Fixtures every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of sample material beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("the sample material ../shared is not beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def shared_videos(shared: Path) -> list[Path]:
    return sorted((shared / "videos").iterdir())
