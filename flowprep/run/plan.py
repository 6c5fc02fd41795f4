"""The plan: which clip goes to which shard. Frozen once written; what is new is added to it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from flowprep.config import Settings
from flowprep.errors import FlowprepError
from flowprep.records import Clip
from flowprep.shard.plan import PlanRow
from flowprep.shard.plan import load_plan as load_plan
from flowprep.shard.plan import plan_bytes as plan_bytes

MIN_SHARDS = 8
"""Small datasets still get so many shards in a split, so that workers and loaders have a choice."""


def make_plan(
    clips: list[Clip],
    settings: Settings,
    old: list[PlanRow],
    committed: set[str],
    frozen: set[str] | None = None,
) -> list[PlanRow]:
    """`old` extended by the clips it does not know, in new shards.

    Rows of committed shards (or with these keys, when `frozen` is given) stay as they are; other
    old rows follow their clip, and go when it has gone, unless their shard is committed: then they
    keep their label too, which may be another than the source has. Raises FlowprepError when two
    clips would get one key.
    """
    current = _by_key(clips)
    kept = []
    for row in old:
        is_frozen = row.shard in committed if frozen is None else row.key in frozen
        if row.key in current and not is_frozen:
            now = _row(row.shard, current[row.key])
            kept.append(replace(now, label=row.label) if row.shard in committed else now)
        elif row.shard in committed:
            kept.append(row)
    known = {row.key for row in kept}
    fresh: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        if clip.key not in known:
            fresh[clip.split].append(clip)
    for split in sorted(fresh):
        first = _next_number(old, split)
        kept += _shards(split, first, fresh[split], settings)
    return kept


def _by_key(clips: list[Clip]) -> dict[str, Clip]:
    current: dict[str, Clip] = {}
    for clip in clips:
        other = current.setdefault(clip.key, clip)
        if other is not clip:
            raise FlowprepError(
                f"{other.path!r} and {clip.path!r} get the same key {clip.key}",
                "rename one of them",
            )
    return current


def _row(shard: str, clip: Clip) -> PlanRow:
    return PlanRow(
        shard=shard,
        key=clip.key,
        path=clip.path,
        split=clip.split,
        label=clip.label,
        n_frames=clip.n_frames,
    )


def _next_number(old: list[PlanRow], split: str) -> int:
    numbers = [int(r.shard.rpartition("-")[2]) for r in old if r.split == split]
    return max(numbers, default=-1) + 1


def hash_order(clips: Iterable[Clip], seed: int) -> list[Clip]:
    """Clips in the order of a seeded hash of their keys, which mixes the classes."""
    return sorted(clips, key=lambda c: hashlib.sha256(f"{seed}:{c.key}".encode()).digest())


def _shards(split: str, first: int, clips: list[Clip], settings: Settings) -> list[PlanRow]:
    """Cut the clips, in hash order, into shards of about equally many frames."""
    weights = [max(1, c.n_frames) for c in clips]
    n_shards = max(-(-sum(weights) // settings.shard_frames), min(len(clips), MIN_SHARDS))
    total, before, rows, numbers = sum(weights), 0, [], dict[int, int]()
    for clip in hash_order(clips, settings.seed):
        weight = max(1, clip.n_frames)
        slot = (2 * before + weight) * n_shards // (2 * total)
        before += weight
        number = numbers.setdefault(slot, first + len(numbers))
        rows.append(_row(f"{split}-{number:06d}", clip))
    return rows


def class_list(rows: Iterable[PlanRow], old: Sequence[str], order: Sequence[str] = ()) -> list[str]:
    """Class names by index: known ones keep theirs, then come those of `order`, whether they have
    clips or not, then other new ones by name.
    """
    known = [*old, *order]
    return list(dict.fromkeys([*known, *sorted({row.label for row in rows if row.label})]))


def shard_sizes(rows: Iterable[PlanRow]) -> Counter[str]:
    """Frames planned in each shard."""
    sizes: Counter[str] = Counter()
    for row in rows:
        sizes[row.shard] += row.n_frames
    return sizes
