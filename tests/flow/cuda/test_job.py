"""Whole shards with engine `cuda`: clips in batches, and what the samples say of the engine."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flowprep.config import Settings
from flowprep.flow import distinct
from flowprep.flow.base import TVL1Params
from flowprep.flow.cuda.engine import Cuda
from flowprep.flow.cuda.layout import Geometry
from flowprep.run import plan
from flowprep.run.executors import Resources
from flowprep.run.job import run_shard
from flowprep.run.jobs import planned_shards
from flowprep.run.making import make_tools
from flowprep.run.prepare import Request, prepare
from flowprep.run.progress import make_display
from flowprep.run.reporting import Progress
from flowprep.run.workplace import Here
from flowprep.shard.layout import Layout
from flowprep.shard.reader import iter_samples

FEW = {"n_iterations": 12, "n_warps": 2}
FRAMES = (8, 3, 20, 5)


def make_shard(src: Path, out: Path, **engine_options: Any) -> tuple[Path, Counter[str]]:
    """The tar, and the counts of its job."""
    request = Request(
        src=str(src),
        out=str(out),
        settings=Settings(engine="cuda", engine_params=FEW, short_side=0),
        resources=Resources(executor="local", workers=1),
    )
    layout = Layout(out)
    layout.marks.mkdir(parents=True)
    work = prepare(
        request, layout, make_display(False, quiet=True), Here(request.resources), dry=True
    )
    job = planned_shards(layout, work)[0].build()
    counts: Counter[str] = Counter()

    def report(progress: Progress) -> None:
        counts.update(progress.counts)

    run_shard(job, make_tools(job.settings, engine_options=engine_options), report)
    return layout.tar(job.shard), counts


@pytest.fixture
def src(tmp_path: Path, make_video: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Videos that all go to one shard."""
    monkeypatch.setattr(plan, "MIN_SHARDS", 1)
    for number, n_frames in enumerate(FRAMES):
        make_video(tmp_path / "videos" / f"{number}.mp4", n_frames=n_frames)
    return tmp_path / "videos"


def test_a_shards_clips_share_batches_and_their_bytes_do_not_show_it(
    fake_cupy: Any, src: Path, tmp_path: Path
) -> None:
    digests = set()
    n_batches = []
    for n_pairs in (400, 7, 1):
        geometry = Geometry.of((48, 64), TVL1Params(**FEW))
        n_bytes = 2 * geometry.bytes_for(n_pairs + n_pairs // 4 + 1, n_pairs)  # two lanes
        before = fake_cupy.n_synchronized
        tar, counts = make_shard(src, tmp_path / f"out-{n_pairs}", gpu_bytes=n_bytes)
        n_batches.append((fake_cupy.n_synchronized - before) / 2)
        digests.add(hashlib.sha256(tar.read_bytes()).hexdigest())
        assert counts["flows"] + counts["identical"] == sum(FRAMES) - len(FRAMES)
        assert counts["failures"] == 0
    assert len(digests) == 1
    n_all = sum(FRAMES) - len(FRAMES)
    assert n_batches[0] == 1, "all clips in one batch"
    assert n_all / 7 <= n_batches[1] <= n_all / 2
    assert n_batches[2] == n_all


def test_codes_from_the_device_are_those_of_the_host(
    fake_cupy: Any, src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Cuda, "compute_batch", None)  # flow as numbers is not asked for
        coded, _ = make_shard(src, tmp_path / "coded")
    monkeypatch.setattr(distinct, "GivesCodes", type("NoEngine", (), {}))
    monkeypatch.setattr(Cuda, "compute_codes_batch", None)
    plain, _ = make_shard(src, tmp_path / "plain")
    for one, other in zip(iter_samples(coded), iter_samples(plain), strict=True):
        assert one.members.keys() == other.members.keys()
        for name in one.members.keys() - {"json"}:
            assert one.members[name] == other.members[name]
        assert one.info.flow_mean_px == pytest.approx(other.info.flow_mean_px, abs=2e-6)
        assert replace(one.info, flow_mean_px=0) == replace(other.info, flow_mean_px=0)
        assert one.info.flow_mean_px > 0.1


def test_a_sample_says_what_computed_its_flow(fake_cupy: Any, src: Path, tmp_path: Path) -> None:
    tar, _ = make_shard(src, tmp_path / "out")
    for sample in iter_samples(tar):
        assert sample.info.engine == "cuda"
        assert json.loads(sample.info.engine_params) == {
            **TVL1Params(**FEW).as_dict(),
            "rules": "cuda",
            "numerics": "fast",
        }
        assert sample.info.engine_build == "float32, cupy fake nvrtc 13.0 sm_120 Fake"
