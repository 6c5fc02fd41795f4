"""Whatever comes and goes, every shard is made; nobody waits while there is something to do."""

from __future__ import annotations

import random
import sys
from collections import Counter, defaultdict
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from flowprep.run.job import PlannedShard, ShardJob
from flowprep.run.schedule import MAX_DEATHS

sys.path.append(str(Path(__file__).parents[1] / "bench"))
import simulated
from simulated_schedule import LATENCY_S, Churn, Seen, efficiency, simulate

FRAMES = st.lists(st.integers(1, 5000), min_size=1, max_size=60)
A_MOMENT_S = 2 * LATENCY_S + 1e-6
"""From one shard to the next by way of the driver."""


def planned(frames: list[int], clip_frames: int = 1000) -> list[PlannedShard]:
    return simulated.plan(frames, Path("out"), clip_frames)


def cost_s(shard: PlannedShard | ShardJob) -> float:
    return simulated.cost_s(shard, pair_s=0.03)


def gaps_s(seen: Seen) -> list[float]:
    """Of each worker, before each of its shards and until the last one was handed out."""
    begun = defaultdict[int, list[tuple[float, float]]](list)
    for span in seen.spans:
        begun[span.worker].append((span.from_s, span.to_s))
    found = []
    for worker, since_s, _ in seen.lives:
        for from_s, to_s in [*sorted(begun[worker]), (seen.handed_out_s, 0.0)]:
            found.append(from_s - since_s)
            since_s = to_s
    return found


@settings(max_examples=150, deadline=None)
@given(frames=FRAMES, n_nodes=st.integers(1, 5), slots=st.integers(1, 4))
def test_nobody_waits_while_there_is_work(frames: list[int], n_nodes: int, slots: int) -> None:
    shards = planned(frames)
    outcome, pool = simulate(shards, cost_s, n_nodes=n_nodes, slots=slots)
    assert Counter(d.shard for d in outcome.done) == Counter(one.shard for one in shards)
    assert max(gaps_s(pool.seen)) <= A_MOMENT_S
    costs_s = [cost_s(one) + A_MOMENT_S for one in shards]
    least_s = sum(costs_s) / (n_nodes * slots)
    assert pool.seen.end_s <= 5 + least_s + max(costs_s)  # Graham's bound, after 5 s of starting


@settings(max_examples=150, deadline=None)
@given(
    frames=FRAMES,
    n_nodes=st.integers(1, 5),
    slots=st.integers(1, 8),
    mean_life_s=st.floats(60, 3000),
    mean_away_s=st.floats(1, 100),
    seed=st.integers(0, 1 << 20),
)
def test_nodes_come_and_go_and_nothing_is_lost(
    frames: list[int], n_nodes: int, slots: int, mean_life_s: float, mean_away_s: float, seed: int
) -> None:
    shards = planned(frames)
    churn = Churn(mean_life_s=mean_life_s, mean_away_s=mean_away_s)
    outcome, pool = simulate(shards, cost_s, n_nodes=n_nodes, slots=slots, churn=churn, seed=seed)
    told = Counter(done.shard for done in outcome.done)
    assert told + Counter(outcome.lost.keys()) == Counter(one.shard for one in shards)
    assert told.keys() <= pool.seen.committed.keys()
    assert all(pool.seen.handed_out[shard] == MAX_DEATHS for shard in outcome.lost)


def test_a_run_that_is_interrupted_again_and_again_makes_each_shard_once() -> None:
    shards, generator, committed = planned([900] * 200), random.Random(0), Counter[str]()
    for _ in range(100):
        left = [one for one in shards if one.shard not in committed]
        if not left:
            break
        until_s = generator.uniform(6, 100)
        _, pool = simulate(left, cost_s, n_nodes=3, slots=4, interrupt_s=until_s)
        committed += pool.seen.committed
    assert committed == Counter(one.shard for one in shards)


def test_a_hundred_workers_that_come_and_go_are_kept_busy() -> None:
    shards = planned(simulated.draw_frames(4000, seed=1), clip_frames=8000)
    churn = Churn(mean_life_s=6 * 3600, mean_away_s=300)
    outcome, pool = simulate(shards, cost_s, n_nodes=25, slots=4, churn=churn)
    found = efficiency(pool.seen)
    assert len(outcome.done) == len(shards)
    assert pool.seen.deaths
    assert found["idle at the end"] < 0.03
    assert found["at work"] > 0.95
