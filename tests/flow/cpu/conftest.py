from __future__ import annotations

from pathlib import Path

import pytest

from flowprep.flow.cpu.jit import Target


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, in use."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("FLOWPREP_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def targets() -> dict[str, Target]:
    """This processor, and others whose instructions it knows."""
    host = Target.host()
    has = set(host.features.split(","))
    found = {"host": host}
    if {"+fma", "+avx2", "+bmi2"} <= has:
        found["x86-64-v3"] = Target("x86-64-v3", "+fma")
    if {"+avx512f", "+avx512bw", "+avx512dq", "+avx512vl"} <= has:
        found["x86-64-v4"] = Target("x86-64-v4", "+fma")
    return found
