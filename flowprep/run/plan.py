"""The plan: which clip goes to which shard. Frozen once written; what is new is added to it."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence, Set
from dataclasses import replace
from typing import Protocol

from flowprep.collector import collector_off
from flowprep.config import Settings
from flowprep.errors import FlowprepError
from flowprep.shard.plan import PlanRow

MIN_SHARDS = 8
"""Small datasets still get so many shards in a split, so that workers and loaders have a choice."""


class Planned(Protocol):
    """What a plan needs of a clip: a Clip has it, and `kept.PlannedClip`, which is light."""

    @property
    def key(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def n_frames(self) -> int: ...


@collector_off()
def make_plan(
    clips: Sequence[Planned],
    settings: Settings,
    old: Iterable[PlanRow],
    committed: set[str],
    failed: Set[str] = frozenset(),
) -> list[PlanRow]:
    """`old` extended by the clips it does not know, in new shards.

    Rows of committed shards stay as they are, but for those of clips that `failed` and are tried
    again; other old rows follow their clip, and go when it has gone, unless their shard is
    committed: then they keep their label too, which may be another than the source has. Raises
    FlowprepError when two clips would get one key.
    """
    current, old = _by_key(clips), list(old)
    kept = []
    for row in old:
        is_frozen = row.shard in committed and row.key not in failed
        if row.key in current and not is_frozen:
            now = _row(row.shard, current[row.key])
            kept.append(replace(now, label=row.label) if row.shard in committed else now)
        elif row.shard in committed:
            kept.append(row)
    known = {row.key for row in kept}
    fresh: dict[str, list[Planned]] = defaultdict(list)
    for clip in clips:
        if clip.key not in known:
            fresh[clip.split].append(clip)
    for split in sorted(fresh):
        first = _next_number(old, split)
        kept += _shards(split, first, fresh[split], settings)
    return kept


def _by_key(clips: Sequence[Planned]) -> dict[str, Planned]:
    current: dict[str, Planned] = {}
    for clip in clips:
        other = current.setdefault(clip.key, clip)
        if other is not clip:
            raise FlowprepError(
                f"{other.path!r} and {clip.path!r} get the same key {clip.key}",
                "rename one of them",
            )
    return current


def _row(shard: str, clip: Planned) -> PlanRow:
    return PlanRow(
        shard=shard,
        key=clip.key,
        path=clip.path,
        split=clip.split,
        label=clip.label,
        n_frames=clip.n_frames,
    )


def _next_number(old: Iterable[PlanRow], split: str) -> int:
    numbers = [int(r.shard.rpartition("-")[2]) for r in old if r.split == split]
    return max(numbers, default=-1) + 1


def hash_order(clips: Iterable[Planned], seed: int) -> list[Planned]:
    """Clips in the order of a seeded hash of their keys, which mixes the classes."""
    return sorted(clips, key=lambda c: hashlib.sha256(f"{seed}:{c.key}".encode()).digest())


def _shards(split: str, first: int, clips: Sequence[Planned], settings: Settings) -> list[PlanRow]:
    """Cut the clips, in hash order, into shards of about equally many frames."""
    weights = [max(1, c.n_frames) for c in clips]
    n_shards = max(-(-sum(weights) // settings.shard_frames), min(len(clips), MIN_SHARDS))
    total, before, rows, names = sum(weights), 0, [], dict[int, str]()
    for clip in hash_order(clips, settings.seed):
        weight = max(1, clip.n_frames)
        slot = (2 * before + weight) * n_shards // (2 * total)
        before += weight
        name = names.setdefault(slot, f"{split}-{first + len(names):06d}")
        rows.append(_row(name, clip))
    return rows


def class_list(labels: Iterable[str], old: Sequence[str], order: Sequence[str] = ()) -> list[str]:
    """Class names by index: known ones keep theirs, then come those of `order`, whether they have
    clips or not, then other new ones by name.
    """
    known = [*old, *order]
    return list(dict.fromkeys([*known, *sorted({label for label in labels if label})]))
