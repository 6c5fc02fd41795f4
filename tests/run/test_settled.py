"""Going on by settled.json gives what going on without it gives; nothing stale is believed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from flowprep.config import Settings
from flowprep.run.executors import Resources
from flowprep.run.prepare import Request, Work, prepare
from flowprep.run.progress import make_display
from flowprep.run.stored import settled_bytes
from flowprep.run.workplace import Here
from flowprep.shard.layout import Layout
from flowprep.shard.plan import load_plan, plan_bytes

SETTINGS = Settings(engine="constant", short_side=64)
Spoil = Callable[[dict[str, str]], bytes]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, video: Any) -> Path:
    folder = tmp_path_factory.mktemp("settled") / "src"
    for number in range(4):
        video(folder / "ab"[number % 2] / f"clip{number}.mp4", number)
    return folder


@pytest.fixture(scope="module")
def finished(source: Path, extracting: Any) -> Path:
    return Path(extracting(source).must(source.parent / "out"))


@pytest.fixture
def begun(finished: Path, tmp_path: Path) -> Layout:
    """The dataset as a run leaves it that was killed before its last shard."""

    layout = Layout(shutil.copytree(finished, tmp_path / "out"))
    for path in (layout.dataset, layout.index, layout.failures, _last_mark(layout)):
        path.unlink()
    listed, planned = layout.manifest.read_bytes(), layout.plan.read_bytes()
    layout.settled.write_bytes(settled_bytes(listed, planned, SETTINGS))
    return layout


def _last_mark(layout: Layout) -> Path:
    return sorted(Path(str(layout.marks)).glob("*.json"))[-1]


def _prepared(layout: Layout, source: Path) -> Work:
    resources = Resources(executor="local")
    request = Request(src=str(source), out=str(layout.out), settings=SETTINGS, resources=resources)
    return prepare(request, layout, make_display(False, True), Here(resources), dry=True)


def test_the_plan_is_taken_as_it_is(begun: Layout, source: Path) -> None:
    work = _prepared(begun, source)
    assert (work.is_stored, len(work.todo)) == (True, 1)
    begun.settled.unlink()
    anew = _prepared(begun, source)
    assert not anew.is_stored
    assert list(map(asdict, work.plan)) == list(map(asdict, anew.plan))
    assert [v.path for v in work.videos] == [v.path for v in anew.videos]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda told: b"",
        lambda told: b"{",
        lambda told: b"[]",
        lambda told: b'"x"',
        lambda told: json.dumps(told | {"manifest": "0" * 64}).encode(),
        lambda told: json.dumps(told | {"plan": "0" * 64}).encode(),
        lambda told: json.dumps(told | {"settings": Settings(fps=5.0).fingerprint()}).encode(),
        lambda told: json.dumps(told | {"flowprep": "0.0.1"}).encode(),
        lambda told: json.dumps({k: v for k, v in told.items() if k != "manifest"}).encode(),
    ],
)
def test_what_tells_of_other_files_is_not_believed(
    begun: Layout, source: Path, spoil: Spoil
) -> None:
    """The plan tells another length of the clips of the shard that is left: what is believed stays,
    everything else comes from the videos.
    """
    (left,) = _prepared(begun, source).todo
    rows = [replace(r, n_frames=3) if r.shard == left else r for r in load_plan(begun.plan)]
    true = {r.key: r.n_frames for r in load_plan(begun.plan)}
    begun.plan.write_bytes(plan_bytes(rows))
    listed, planned = begun.manifest.read_bytes(), begun.plan.read_bytes()
    begun.settled.write_bytes(settled_bytes(listed, planned, SETTINGS))
    believed = _prepared(begun, source)
    assert {row.n_frames for row in believed.plan if row.shard == left} == {3}
    begun.settled.write_bytes(spoil(json.loads(begun.settled.read_bytes())))
    assert {row.key: row.n_frames for row in _prepared(begun, source).plan} == true


def test_a_source_that_has_changed_is_planned_again(
    begun: Layout, source: Path, video: Any, tmp_path: Path
) -> None:
    changed = Path(shutil.copytree(source, tmp_path / "src"))
    video(changed / "a" / "new.mp4", 7)
    work = _prepared(begun, changed)
    assert not work.is_stored
    assert {"a/new.mp4"} < {row.path for row in work.plan}


def test_it_goes_on_to_the_same_bytes_and_leaves_nothing_behind(
    begun: Layout, source: Path, finished: Path, extracting: Any, tree: Any
) -> None:
    assert tree(extracting(source).must(Path(str(begun.out)))) == tree(finished)
    assert "_flowprep/settled.json" not in tree(finished)
