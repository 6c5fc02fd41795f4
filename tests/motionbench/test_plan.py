"""What is done, in which order, and what an arm is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flowprep.errors import FlowprepError
from pipelines.motionbench import bench as bench_module
from pipelines.motionbench.__main__ import at_once, budget_s
from pipelines.motionbench.arms import ARM, ARMS, PAIRS, WAYS
from pipelines.motionbench.bench import Bench
from pipelines.motionbench.dataset import Task
from pipelines.motionbench.findings import criteria
from pipelines.motionbench.plan import main_task, plan, tasks, ways
from pipelines.motionbench.scales import SCALES
from pipelines.motionbench.training import TrainJob, best_try, tries
from pipelines.motionbench.ways import what_is_other
from train.config import DistillConfig, Net, TeacherConfig


def bench(out: Path, scale: str = "tiny") -> Bench:
    return Bench(scale, out, "cpu", "cpu")


@pytest.mark.parametrize("scale", SCALES)
def test_what_is_needed_comes_first_and_nothing_twice(scale: str, tmp_path: Path) -> None:
    one = bench(tmp_path, scale)
    done: set[str] = set()
    for job in plan(one) + ways(one):
        assert job.name not in done
        assert set(job.needs(one)) <= done, job.name
        done.add(job.name)


@pytest.mark.parametrize("scale", SCALES)
def test_every_arm_of_a_criterion_is_trained_with_every_seed(scale: str, tmp_path: Path) -> None:
    one = bench(tmp_path, scale)
    names = {job.name for job in plan(one)}
    for criterion in criteria():
        asked = [criterion.get(who) for who in ("arm", "than", "base", "reference")]
        arms = [a for name in asked if name for a in PAIRS.get(name, (name,))]
        task = main_task(one, criterion.get("space", "C"))
        needed = {TrainJob(task, arm, seed).name for arm in arms for seed in one.scale.seeds}
        assert needed <= names


def test_every_arm_has_as_many_tries(tmp_path: Path) -> None:
    one = bench(tmp_path)
    assert {len(tries(one, Task("C", 144), arm)) for arm in ARMS if not arm.settings_of} == {3}
    assert ARM["second-rgb"].settings_of == "rgb"


def test_small_and_full_have_three_seeds() -> None:
    assert all(len(SCALES[name].seeds) >= 3 for name in ("small", "full"))


def search(one: Bench, arm: str, tops: list[tuple[float, float]]) -> None:
    for job, (top1, loss) in zip(tries(one, Task("C", 144), ARM[arm]), tops, strict=True):
        path = one.results / f"{job.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{{"val": {{"top1": {top1}, "loss": {loss}}}}}')


def config_of(one: Bench, arm: str, tried: float | None = None) -> DistillConfig | TeacherConfig:
    task = Task("C", 144 if tried is None else 96)
    job = TrainJob(task, arm, 1 if tried is None else 0, tried)
    return job._config(one, *job._settings(one))


def test_settings_are_those_of_the_best_validation(tmp_path: Path) -> None:
    one = bench(tmp_path)
    search(one, "rgb", [(0.2, 1.0), (0.5, 2.0), (0.5, 1.5)])  # of equals the lower loss
    search(one, "flow", [(0.9, 1.0), (0.5, 1.0), (0.5, 1.0)])
    search(one, "d3d", [(0.1, 1.0), (0.2, 1.0), (0.9, 1.0)])
    assert best_try(one, Task("C", 144), ARM["rgb"]) == 0.01
    d3d = config_of(one, "d3d")
    assert isinstance(d3d, DistillConfig)
    assert (d3d.optim.lr, d3d.lambda_, d3d.loss) == (0.01, 10.0, "mse-logits")
    assert d3d.teacher == str(tmp_path / "runs" / "C-144" / "flow-s1")
    trying = config_of(one, "d3d", tried=0.1)
    assert isinstance(trying, DistillConfig)
    assert (trying.optim.lr, trying.lambda_) == (0.01, 0.1)
    assert trying.teacher == str(tmp_path / "runs" / "search" / "C-96" / "flow-0.001")


def test_arms_differ_in_what_they_are_named_for_alone(tmp_path: Path) -> None:
    one = bench(tmp_path)
    for arm in ARMS:
        if arm.tries:
            search(one, arm.name, [(0.5, 1.0), (0.1, 1.0), (0.1, 1.0)])
    rgb = config_of(one, "rgb")
    assert isinstance(rgb, DistillConfig)
    for name, changed in {
        "second-rgb": {"seed": 1001},
        "self-distilled": {"loss": "mse-logits", "teacher_sees": "rgb"},
        "d3d-shuffled-logits": {"loss": "mse-logits", "teacher_logits": "shuffled"},
        "mars": {"loss": "mse-features", "lambda_": 5.0},
        "kl": {"loss": "kl"},
        "multi-task": {"loss": "flow"},
    }.items():
        found = config_of(one, name)
        assert isinstance(found, DistillConfig)
        teacher = ARM[name].teacher
        assert Path(found.teacher).name == (f"{teacher}-s1" if teacher else "")
        weight = {"lambda_": 0.1} if ARM[name].weights else {}
        same = {"run": found.run, "teacher": found.teacher, **weight, **changed}
        assert found == replace(rgb, **same), name
    flow = config_of(one, "flow")
    assert isinstance(flow, TeacherConfig)
    assert (flow.net, flow.optim, flow.data) == (rgb.net, rgb.optim, rgb.data)
    assert config_of(one, "single-frame").data == replace(rgb.data, frames=1)
    assert config_of(one, "shuffled-frames").data == replace(rgb.data, shuffle_frames=True)


def test_ways_change_what_they_are_named_for_alone(tmp_path: Path) -> None:
    one = bench(tmp_path)
    for arm in ARMS:
        if arm.tries:
            search(one, arm.name, [(0.5, 1.0), (0.1, 1.0), (0.1, 1.0)])
    d3d, rgb = config_of(one, "d3d"), config_of(one, "rgb")
    longer = replace(rgb.optim, epochs=3 * rgb.optim.epochs)
    better = str(tmp_path / "runs/C-144/flow-longer-s1")

    def net(start: str, reset_head: bool) -> dict[str, Net]:
        return {"net": replace(rgb.net, init=str(tmp_path / "runs" / start), reset_head=reset_head)}

    for name, like, changed in (
        ("rgb-longer", rgb, {"optim": longer}),
        ("rgb-motion-first", rgb, net("P-144/rgb-s1", True)),
        ("d3d-longer", d3d, {"optim": longer, "teacher": better}),
        ("d3d-then-labels", rgb, net("C-144/d3d-weight-1-s1", False)),
        ("rgb-again", rgb, net("C-144/rgb-s1", False)),
        ("d3d-weight-1", d3d, {"lambda_": 1.0}),
        ("d3d-centred", d3d, {"center_logits": True}),
        ("d3d-better-teacher", d3d, {"teacher": better}),
        ("d3d-motion-first", d3d, net("P-144/d3d-s1", True)),
        ("multi-task-longer", config_of(one, "multi-task"), {"optim": longer}),
        ("flow-longer", config_of(one, "flow"), {"optim": longer}),
    ):
        found = config_of(one, name)
        assert found == replace(like, run=found.run, **changed), name
    assert "flow-longer" in what_is_other("d3d-longer")
    assert {what_is_other(arm.name) for arm in WAYS} >= {
        *("weight 1", "starts with the weights of d3d (P)"),
    }


@pytest.mark.parametrize("scale", SCALES)
def test_all_sizes_take_as_many_steps(scale: str, tmp_path: Path) -> None:
    one = bench(tmp_path, scale)
    batch = one.scale.optim.batch
    for task in tasks(one):
        epochs = TrainJob(task, "rgb", 1)._epochs(one)
        assert epochs * task.n_train / batch == pytest.approx(one.scale.steps, rel=1e-3)


def test_a_folder_of_another_scale_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench(tmp_path).begin()
    bench(tmp_path).begin()
    with pytest.raises(
        FlowprepError, match="is an experiment with other settings: gate_clips, n_frames"
    ):
        bench(tmp_path, "small").begin()
    changed = {"tiny": replace(SCALES["tiny"], n_test=96)}
    monkeypatch.setattr(bench_module, "SCALES", changed)
    with pytest.raises(FlowprepError, match="with other settings: n_test"):
        bench(tmp_path).begin()


def test_budgets_are_durations() -> None:
    assert [budget_s(text) for text in ("90s", "25m", "1.5h", "")] == [90, 1500, 5400, float("inf")]
    with pytest.raises(FlowprepError, match="--budget 25 is no duration"):
        budget_s("25")
    assert at_once(3, "cuda") == 3
    assert at_once(0, "cuda") == 1
