"""From logits to verdicts, against counting by hand; and the page, which is always the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.motionbench.dataset import videos
from pipelines.motionbench.findings import CRITERIA, Results, spread, verdicts
from pipelines.motionbench.judge import confusion, judge, together
from pipelines.motionbench.motions import MOTIONS, PALETTES
from pipelines.motionbench.page import write_page

C = sorted(f"{palette} {motion}" for palette in PALETTES for motion in MOTIONS)
P = sorted(MOTIONS)
PAIR = {
    **{"left": "right", "up": "down", "clockwise": "counterclockwise", "expand": "contract"},
    "orbit-clockwise": "orbit-counterclockwise",
    "horizontal-first": "vertical-first",
}
OTHER = PAIR | {b: a for a, b in PAIR.items()}


@pytest.mark.parametrize("classes", [C, P], ids=["C", "P"])
def test_shares_are_those_counted_by_name(classes: list[str]) -> None:
    rng = np.random.default_rng(0)
    logits, label = rng.normal(size=(300, len(classes))), rng.integers(len(classes), size=300)
    logits[np.arange(300), label] += 1.5
    right: dict[str, list[bool]] = {
        "motion": [],
        "direction": [],
        "composite": [],
        "appearance": [],
    }
    for row, place in zip(logits, label, strict=True):
        said, is_ = classes[row.argmax()].split(" "), classes[place].split(" ")
        right["motion"].append(said[-1] == is_[-1])
        right["composite"].append(said == is_)
        right["appearance"].append(said[0] == is_[0])
        against = classes.index(" ".join([*is_[:-1], OTHER[is_[-1]]]))
        right["direction"].append(row[place] > row[against])
    found = judge(logits, label, classes)
    assert found == {name: pytest.approx(np.mean(right[name])) for name in found}
    assert len(found) == (4 if classes is C else 2)
    counts = np.array(confusion(logits, label, classes))
    assert counts.sum() == 300
    assert np.trace(counts) == sum(right["motion"])


def test_two_networks_answer_by_the_mean_of_their_logits() -> None:
    one = {"video_V": [3, 5], "label_V": [0, 1], "classes": P, "logits_VK": np.ones((2, 12))}
    other = one | {"logits_VK": np.full((2, 12), 4.0)}
    assert (together(one, other)[0] == 2.5).all()
    with pytest.raises(ValueError, match="not asked about the same videos"):
        together(one, other | {"video_V": [3, 6]})


def test_intervals_are_students() -> None:
    """4.303 = t(0.975; 2), of any table; the standard error is 1 / sqrt(3)."""
    assert spread([1.0, 2.0, 3.0], "{:.3f}".format) == (
        "2.000 (sd 1.000; 95 %: -0.484 to 4.484; 3 seeds)"
    )


SCALE = {
    "name": "small",
    "n_train": [240, 480],
    "side": 64,
    "n_frames": 9,
    "n_test": 960,
    "seeds": [1, 2, 3],
    "net": {"width": 0.25},
    "crop": 56,
    "biases": [],
}
WHERE = {
    "machine": {"cpu": "some CPU", "cores": 2, "gpu": ""},
    "commit": "abc",
    "versions": {"torch": "2"},
}


class Made:
    """Results written by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.put("scale", SCALE)

    def put(self, name: str, value: Any) -> None:
        path = self.folder / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))

    def arm(self, space: str, arm: str, metric: str, values: list[float], n: int = 480) -> None:
        for seed, value in enumerate(values, 1):
            name = f"{space}-{n}/{arm}-s{seed}"
            path = self.folder / f"{name}.json"
            found = json.loads(path.read_text()) if path.exists() else {"test": {}}
            part = "test_shuffled" if "shuffled" in metric else "test"
            found.setdefault(part, {})[metric.partition(",")[0]] = value
            facts = {"space": space, "arm": arm, "seed": seed, "n_train": n, "bias": 0.0}
            eye = np.eye(12, dtype=int).tolist()
            self.put(name, found | facts | WHERE | {"seconds": 60.0, "confusion": eye})

    def probe(self, arm: str, seed: int, epe_px: float) -> None:
        row = {"layer": "3A", "epe_px": epe_px, "zero_flow_epe_px": 1.0, "mean_flow_epe_px": 0.9}
        flow = np.ones((2, 7, 7), int).tolist()
        facts = {"arm_name": arm, "seed": seed, "decoder": "pwc", "finetune": False}
        shown = {"layers": [row], "over_layers": False, "shown": {"tvl1": flow, "decoded": flow}}
        self.put(f"probe/{arm}-s{seed}-pwc", facts | shown | WHERE)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "results")


def verdict_of(made: Made, claim: str) -> tuple[bool | None, str]:
    (one,) = [v for v in verdicts(Results(made.folder)) if claim in v.claim]
    return one.holds, one.found


def test_without_results_nothing_is_claimed(made: Made) -> None:
    found = verdicts(Results(made.folder))
    assert len(found) == CRITERIA.read_text().count("[[criterion]]")
    assert all(v.holds is None and v.found == "not measured" for v in found)


def test_a_control_at_chance_holds_and_one_above_fails(made: Made) -> None:
    made.arm("P", "single-frame", "motion", [0.08, 0.09, 0.10])
    made.arm("P", "shuffled-frames", "direction", [0.50, 0.53, 0.56])
    assert verdict_of(made, "A single frame")[0] is True
    assert verdict_of(made, "Frames in shuffled order")[0] is False
    assert verdicts(Results(made.folder))[0].holds is False  # what failed comes first


def test_differences_are_paired_by_seed_and_taken_where_they_are_largest(made: Made) -> None:
    made.arm("P", "flow", "motion", [0.90, 0.80, 0.95])
    made.arm("P", "rgb", "motion", [0.89, 0.79, 0.94])
    assert verdict_of(made, "Flow knows") == (
        False,
        "+1.0 points (sd 0.0 points; 95 %: +1.0 points to +1.0 points; 3 seeds), N = 480",
    )
    made.arm("P", "flow", "motion", [0.7], n=240)
    made.arm("P", "rgb", "motion", [0.6, 0.1], n=240)  # no flow to compare its second seed with
    holds, found = verdict_of(made, "Flow knows")
    assert holds
    assert found == "+10.0 points, one seed, N = 240"


def test_what_is_recovered_is_a_share_of_the_mean_gain(made: Made) -> None:
    made.arm("C", "rgb", "composite", [0.4, 0.4, 0.4])
    made.arm("C", "two-stream", "composite", [0.6, 0.6, 0.6])
    made.arm("C", "d3d", "composite", [0.5, 0.55, 0.54])
    holds, found = verdict_of(made, "recovers most")
    assert holds is False
    assert found.startswith("65%; d3d - two-stream: -7.0 points")
    made.arm("C", "d3d", "composite", [0.55, 0.55, 0.54])
    assert verdict_of(made, "recovers most")[0] is True
    made.arm("C", "two-stream", "composite", [0.3, 0.3, 0.3])
    assert verdict_of(made, "recovers most")[1].startswith("nothing to recover")


def test_equal_is_not_more(made: Made) -> None:
    for arm in ("d3d", "self-distilled"):
        made.arm("C", arm, "motion", [0.5, 0.6, 0.7])
    assert verdict_of(made, "a teacher of RGB does not")[0] is False


def test_probes_are_compared_seed_by_seed(made: Made) -> None:
    for seed, (rgb, d3d) in enumerate([(0.5, 0.4), (0.9, 0.8)], 1):
        made.probe("rgb", seed, rgb)
        made.probe("d3d", seed, d3d)
    made.probe("d3d", 3, 5.0)  # without its pair
    holds, found = verdict_of(made, "features hold more")
    assert holds
    assert found.startswith("-0.100 px")


def test_the_page_is_the_same_from_the_same_results_wherever_they_lie(
    made: Made, tmp_path: Path
) -> None:
    for arm in ("rgb", "flow", "d3d", "two-stream"):
        made.arm("C", arm, "composite", [0.4, 0.5, 0.61])
    for arm in ("rgb", "flow"):
        made.arm("P", arm, "motion", [0.4, 0.5, 0.61])
    made.arm("P", "rgb", "motion", [0.3, 0.2], n=240)
    for seed in (1, 2):
        made.probe("rgb", seed, 0.5)
        made.probe("d3d", seed, 0.4)
    page = write_page(made.folder, tmp_path / "one")
    moved = shutil.copytree(made.folder, tmp_path / "elsewhere")
    write_page(moved, tmp_path / "two")
    names = sorted(path.name for path in page.parent.iterdir())
    assert names == ["confusion.png", "curves.png", "flow.png", "page.md"]
    for name in names:
        assert (page.parent / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    text = page.read_text()
    assert "**Small: the scale for two CPU cores.**" in text
    assert "2 cores of some CPU; commit abc; torch 2" in text
    assert "| rgb |  | 50.3 % ± 10.5 |" in text  # of C
    assert text.index("FAILS") < text.index("not measured") < text.index("holds")
    assert all(f"]({name})" in text for name in names if name.endswith("png"))


def test_the_labels_of_the_dataset_are_classes_that_can_be_judged() -> None:
    assert sorted({v.label("C") for v in videos("test", 48)}) == C
    assert sorted({v.label("P") for v in videos("test", 48)}) == P


def test_the_page_in_docs_is_made_from_the_results_that_are_kept(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    made = write_page(root / "pipelines/motionbench/results/small", tmp_path)
    kept = root / "docs/motionbench"
    assert made.read_text("utf-8") == (kept / "page.md").read_text("utf-8")
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in kept.iterdir()}
