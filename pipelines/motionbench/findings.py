"""Results read back, and what the criteria say of them. Nothing but JSON and TOML is looked at."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CRITERIA = Path(__file__).with_name("criteria.toml")
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t, 97.5 %, of 1, 2, ... degrees of freedom."""

BySeed = dict[int, float]


class Results:
    """All results of a folder."""

    def __init__(self, folder: Path) -> None:
        paths = sorted(folder.rglob("*.json"))
        self.all = {
            path.relative_to(folder).with_suffix("").as_posix(): json.loads(
                path.read_text(encoding="utf-8")
            )
            for path in paths
        }
        self.scale: dict[str, Any] = self.all.pop("scale")
        self.trained = [r for name, r in self.all.items() if "test" in r and "probe" not in name]

    def get(self, name: str) -> dict[str, Any] | None:
        return self.all.get(name)

    @property
    def n_main(self) -> int:
        """Size of the main training set."""
        return int(self.scale["n_train"][-1])

    def values(
        self, space: str, arm: str, metric: str, n: int | None = None, bias: float = 0.0
    ) -> BySeed:
        """A metric of an arm by seed; "..., shuffled" is of clips in shuffled order."""
        name, shuffled, _ = metric.partition(", shuffled")
        part = "test_shuffled" if shuffled else "test"
        key = space, arm, n or self.n_main, bias
        return {
            r["seed"]: r[part][name]
            for r in self.trained
            if (r["space"], r["arm"], r["n_train"], r["bias"]) == key and name in r.get(part, {})
        }

    def probes(self, arm: str, decoder: str, *, tuned: bool = False) -> dict[int, dict[str, float]]:
        """What the probe at 3A found, by seed."""
        return {
            r["seed"]: r["layers"][0]
            for name, r in self.all.items()
            if name.startswith("probe/")
            and (r["arm_name"], r["decoder"], r["finetune"]) == (arm, decoder, tuned)
            and not r["over_layers"]
        }


@dataclass(frozen=True)
class Verdict:
    """One criterion: whether it holds (None = not measured), what was found and was needed."""

    claim: str
    holds: bool | None
    found: str
    needed: str


def criteria() -> list[dict[str, Any]]:
    """What must come out, in the order of the file."""
    listed: list[dict[str, Any]] = tomllib.loads(CRITERIA.read_text(encoding="utf-8"))["criterion"]
    return listed


def verdicts(results: Results) -> list[Verdict]:
    """Of every criterion: what failed first, then what was not measured, then what holds."""
    judged = [_judge(results, one) for one in criteria()]
    return sorted(judged, key=lambda v: (v.holds is True, v.holds is None))


def _judge(results: Results, one: dict[str, Any]) -> Verdict:
    found = _KINDS[one["kind"]](results, one)
    if found is None:
        return Verdict(one["claim"], None, "not measured", _needed(one))
    holds, text = found
    return Verdict(one["claim"], holds, text, _needed(one))


def _needed(one: dict[str, Any]) -> str:
    arm, than, kind = one["arm"], one.get("than", ""), one["kind"]
    where = f" ({one['metric']}, {one['space']})" if "metric" in one else ""
    if kind == "at-most":
        return f"{arm} <= {one['limit']:.1%}{where}"
    if kind == "difference":
        return f"{arm} - {than} >= {100 * one['least']:g} points{where}"
    if kind == "recovers":
        return f"{one['least']:.0%} of {one['reference']} - {one['base']}{where}"
    if kind == "lower-epe":
        return f"{arm} < {than}, px"
    if kind == "ratio":
        return f"{one['least']:g} to {one['limit']:g}"
    return f"{arm} > {than}{where}"


Found = tuple[bool, str] | None


def _at_most(results: Results, one: dict[str, Any]) -> Found:
    values = results.values(one["space"], one["arm"], one["metric"])
    if not values:
        return None
    return mean(values.values()) <= one["limit"], spread(list(values.values()), percent)


def _difference(results: Results, one: dict[str, Any]) -> Found:
    """The largest over the sizes of the training set, where the criterion says so."""
    sizes = results.scale["n_train"] if one.get("over") == "N" else [results.n_main]
    found = {n: paired(results, one, one["arm"], one["than"], n) for n in sizes}
    found = {n: values for n, values in found.items() if values}
    if not found:
        return None
    n, best = max(found.items(), key=lambda item: mean(item[1]))
    at = f", N = {n}" if len(sizes) > 1 else ""
    value = mean(best)
    holds = value > 0 if one["kind"] == "more" else value >= one["least"]
    return holds, spread(best, points) + at


def paired(results: Results, one: dict[str, Any], arm: str, than: str, n: int) -> list[float]:
    """Differences of two arms, of each seed that both have."""
    mine, theirs = (results.values(one["space"], a, one["metric"], n) for a in (arm, than))
    return [mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())]


def _recovers(results: Results, one: dict[str, Any]) -> Found:
    """Of the means: a seed without a gain would divide by nothing."""
    gains = paired(results, one, one["reference"], one["base"], results.n_main)
    mine = paired(results, one, one["arm"], one["base"], results.n_main)
    if not gains or not mine:
        return None
    gap = paired(results, one, one["arm"], one["reference"], results.n_main)
    told = f"{one['arm']} - {one['reference']}: {spread(gap, points)}"
    if mean(gains) <= 0:
        return False, f"nothing to recover; {told}"
    share = mean(mine) / mean(gains)
    return share >= one["least"], f"{share:.0%}; {told}"


def _lower_epe(results: Results, one: dict[str, Any]) -> Found:
    mine, theirs = (results.probes(one[who], "pwc") for who in ("arm", "than"))
    seeds = sorted(mine.keys() & theirs.keys())
    if not seeds:
        return None
    off = [mine[seed]["epe_px"] - theirs[seed]["epe_px"] for seed in seeds]
    return mean(off) < 0, spread(off, pixels)


def _ratio(results: Results, one: dict[str, Any]) -> Found:
    cost = results.get("cost")
    if cost is None:
        return None
    ratio = cost[one["quantity"]][one["arm"]] / cost[one["quantity"]][one["than"]]
    return one["least"] <= ratio <= one["limit"], f"{ratio:.4f}"


_KINDS = {
    "at-most": _at_most,
    "difference": _difference,
    "more": _difference,
    "recovers": _recovers,
    "lower-epe": _lower_epe,
    "ratio": _ratio,
}


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    return f"{100 * value:+.1f} points"


def pixels(value: float) -> str:
    return f"{value:+.3f} px"


def spread(values: list[float], form: Any) -> str:
    """Mean, standard deviation, 95 % t interval of the mean, and of how many."""
    if len(values) < 2:
        return f"{form(mean(values))}, one seed"
    half = interval(values)
    low, high = form(mean(values) - half), form(mean(values) + half)
    sd = form(stdev(values)).lstrip("+")
    return f"{form(mean(values))} (sd {sd}; 95 %: {low} to {high}; {len(values)} seeds)"


def interval(values: list[float]) -> float:
    """Half the width of the 95 % t interval of the mean."""
    degrees = min(len(values) - 1, len(T_975))
    return T_975[degrees - 1] * stdev(values) / math.sqrt(len(values))
