"""Which clip goes to which shard, and what of that may change."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from flowprep.config import Settings
from flowprep.errors import FlowprepError
from flowprep.records import Clip
from flowprep.run.plan import MIN_SHARDS, class_list, make_plan
from flowprep.shard.plan import PlanRow

SETTINGS = Settings(shard_frames=100)


def _clip(
    name: str, n_frames: int = 10, split: str = "train", label: str = "", reason: str = ""
) -> Clip:
    index = np.arange(n_frames)
    return Clip(
        key=f"{name}-0000",
        path=f"{name}.mp4",
        number=0,
        label=label,
        split=split,
        source_index=index,
        reason=reason,
    )


def _clips(n: int, first: int = 0, n_frames: int = 10, split: str = "train") -> list[Clip]:
    return [_clip(f"{split}{first + i}", n_frames, split) for i in range(n)]


def _shards(rows: list[PlanRow]) -> set[str]:
    return {row.shard for row in rows}


def _labels(rows: list[PlanRow]) -> list[str]:
    return [row.label for row in rows]


def test_few_clips_still_get_several_shards() -> None:
    assert len(_shards(make_plan(_clips(3), SETTINGS, [], set()))) == 3
    plan = make_plan(_clips(40, n_frames=2), SETTINGS, [], set())
    assert len(_shards(plan)) == MIN_SHARDS


def test_shards_hold_about_the_frames_asked_for() -> None:
    plan = make_plan(_clips(300), SETTINGS, [], set())
    sizes = Counter[str]()
    for row in plan:
        sizes[row.shard] += row.n_frames
    assert len(sizes) == 300 * 10 // 100
    assert max(sizes.values()) <= 100 + 10
    assert sum(sizes.values()) == 3000


def test_a_clip_longer_than_a_shard_and_one_without_frames() -> None:
    clips = [_clip("long", 1000), _clip("bad", 0, reason="missing"), *_clips(20)]
    plan = make_plan(clips, SETTINGS, [], set())
    assert sorted(row.key for row in plan) == sorted(clip.key for clip in clips)


def test_splits_do_not_share_shards() -> None:
    plan = make_plan([*_clips(20), *_clips(20, split="val")], SETTINGS, [], set())
    assert all(row.shard.startswith(f"{row.split}-") for row in plan)
    assert {row.shard for row in plan if row.split == "val"} == {
        f"val-{i:06d}" for i in range(MIN_SHARDS)
    }


def test_numbers_of_shards_have_no_gap() -> None:
    """Also when one clip is longer than all others together."""
    for clips in (_clips(57), [_clip("long", 5000), *_clips(9, n_frames=2)]):
        shards = sorted(_shards(make_plan(clips, SETTINGS, [], set())))
        assert shards == [f"train-{i:06d}" for i in range(len(shards))]


def test_the_order_in_which_clips_are_found_does_not_matter() -> None:
    clips = _clips(50)
    assert make_plan(clips, SETTINGS, [], set()) == make_plan(clips[::-1], SETTINGS, [], set())


def test_the_seed_mixes() -> None:
    """A plain reader gets mixed classes: neighbours by name are not neighbours in a shard."""
    clips = _clips(200)
    order = [int(row.path[5:-4]) for row in make_plan(clips, SETTINGS, [], set())]
    assert sum(abs(a - b) == 1 for a, b in pairwise(order)) < 10
    other = make_plan(clips, Settings(shard_frames=100, seed=1), [], set())
    assert [row.key for row in other] != [row.key for row in make_plan(clips, SETTINGS, [], set())]


@pytest.mark.parametrize("finished", [True, False])
def test_new_videos_get_new_shards_and_old_rows_stay(finished: bool) -> None:
    """Also when nothing is committed yet: a shard that is being made is not planned anew."""
    old = make_plan(_clips(20), SETTINGS, [], set())
    plan = make_plan(_clips(25), SETTINGS, old, _shards(old) if finished else set())
    assert plan[: len(old)] == old
    added = plan[len(old) :]
    assert {row.path for row in added} == {f"train{i}.mp4" for i in range(20, 25)}
    assert not _shards(added) & _shards(old)
    assert min(_shards(added)) == f"train-{MIN_SHARDS:06d}"


def test_a_new_plan_is_the_old_one_when_nothing_changed() -> None:
    old = make_plan(_clips(20), SETTINGS, [], set())
    for committed in (set(), {"train-000003"}, _shards(old)):
        assert make_plan(_clips(20), SETTINGS, old, committed) == old


def test_a_clip_that_changed_follows_the_file_unless_its_shard_is_committed() -> None:
    old = make_plan(_clips(20), SETTINGS, [], set())
    longer = _clips(20, n_frames=12)
    done = {"train-000000", "train-000001"}
    for row in make_plan(longer, SETTINGS, old, done):
        assert row.n_frames == (10 if row.shard in done else 12)


def test_a_clip_that_has_gone_leaves_only_shards_to_make() -> None:
    old = make_plan(_clips(20), SETTINGS, [], set())
    in_done = next(row for row in old if row.shard == "train-000000")
    in_todo = next(row for row in old if row.shard == "train-000001")
    left = [clip for clip in _clips(20) if clip.key not in (in_done.key, in_todo.key)]
    plan = make_plan(left, SETTINGS, old, {"train-000000"})
    assert in_done in plan
    assert in_todo.key not in {row.key for row in plan}


def test_a_retry_changes_rows_of_failures_only() -> None:
    old = make_plan(_clips(20), SETTINGS, [], set())
    failed = old[0].key
    plan = make_plan(_clips(20, n_frames=12), SETTINGS, old, _shards(old), {failed})
    assert [row.shard for row in plan] == [row.shard for row in old]
    assert Counter(row.n_frames for row in plan) == {10: 19, 12: 1}
    assert next(row for row in plan if row.n_frames == 12).key == failed


def test_two_clips_with_one_key_are_refused() -> None:
    twice = [_clip("same"), _clip("same")]
    with pytest.raises(FlowprepError, match=r"'same.mp4' and 'same.mp4' get the same key"):
        make_plan(twice, SETTINGS, [], set())


def test_class_indices_stay() -> None:
    rows = make_plan([_clip("x", label="b"), _clip("y", label="d")], SETTINGS, [], set())
    assert class_list(_labels(rows), []) == ["b", "d"]
    more = make_plan([_clip("z", label="a"), _clip("u", label="c")], SETTINGS, rows, _shards(rows))
    assert class_list(_labels(more), ["b", "d"]) == ["b", "d", "a", "c"]


def test_a_dataset_with_an_order_of_classes_gives_every_class_its_index() -> None:
    """Also those without a clip; only what was there before comes first."""
    rows = make_plan([_clip("x", label="T"), _clip("y", label="a")], SETTINGS, [], set())
    assert class_list(_labels(rows), [], ["i", "T", "b"]) == ["i", "T", "b", "a"]
    assert class_list(_labels(rows), ["b", "T"], ["i", "T", "b"]) == ["b", "T", "i", "a"]


def test_a_class_without_videos_keeps_its_index() -> None:
    assert class_list([], ["b", "d"]) == ["b", "d"]
    rows = make_plan([_clip("x")], SETTINGS, [], set())
    assert class_list(_labels(rows), []) == []
