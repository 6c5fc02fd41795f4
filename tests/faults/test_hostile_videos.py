"""Some damaged videos of the many that fuzz_videos.py makes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fenced import Fence
from fuzz_videos import LIMITS, Files, Tally, base_files
from judge_video import SAMPLE, Case, Verdict, judge, ready

SOME = range(1_000_000, 1_000_150)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return base_files(tmp_path_factory.mktemp("seeds"))


@pytest.fixture(scope="module")
def fence() -> Iterator[Fence]:
    with Fence(judge, ready, LIMITS) as fence:
        yield fence


def test_whole_files_are_samples_with_the_frames_that_pyav_gives(
    files: Files, fence: Fence, tmp_path: Path
) -> None:
    """PyAV complains about the one whose pictures change their size, as FFmpeg drops the seam."""
    for name, data in files.data.items():
        verdict: Verdict = fence.ask(Case(data, tmp_path / "case")).value
        assert verdict.outcome == SAMPLE, f"{name}: {verdict.message}"
        assert verdict.plain_frames in (None, verdict.n_frames), name
        assert verdict.plain_frames or name == "grows.ts"


def test_a_damaged_file_is_a_sample_or_has_a_reason(
    files: Files, fence: Fence, tmp_path: Path
) -> None:
    tally = Tally()
    for seed in SOME:
        name, data = files.mutant(seed)
        tally.add(name, fence.ask(Case(data, tmp_path / "case")))
    assert tally.bad == []
    assert tally.n_plain > 10
    assert tally.outcomes[SAMPLE] > 30
    assert len(tally.outcomes) > 4
    assert tally.worst_mib[0] < 512


def test_a_mutant_is_the_same_every_time(files: Files, tmp_path: Path) -> None:
    assert base_files(tmp_path).data == files.data
    assert files.mutant(7) == files.mutant(7)
    assert files.mutant(7) != files.mutant(8)
