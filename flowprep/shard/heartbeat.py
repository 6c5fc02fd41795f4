"""What a run and its workers say of themselves while it is on, each in a small file written anew.

Nothing vouches for these files and nothing needs them. The run removes them at its end; those of
one that was killed stay until the next.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TypeVar

from flowprep.shard.schema import typed

MOST_BYTES = 1 << 16
MOST_PAUSE_S = 600.0
MOST = 1e12
"""No number in a heartbeat is larger."""


@dataclass(frozen=True, kw_only=True)
class Beat:
    """All durations are by the clock of its process, and end when this was written."""

    host: str
    pid: int
    number: int  # of this beat
    next_s: float  # the next one is to come in so many seconds
    age_s: float  # since the process began with this dataset

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True).encode()


@dataclass(frozen=True, kw_only=True)
class RunBeat(Beat):
    """Who has the dataset."""

    command: str
    user: str


@dataclass(frozen=True, kw_only=True)
class WorkerBeat(Beat):
    """What a worker is on, and how fast it was lately."""

    worker: int
    shard: str  # "" while it waits for one
    shard_s: float  # since it got this one, or ended the last
    clips: int  # planned for the shard
    clips_ended: int  # of these, the failed ones too
    clips_failed: int
    pairs_ended: int  # of frames, of this shard: computed or found equal
    window_s: float  # the last minutes, for the counts that follow
    window_clips: int  # ended
    window_flows: int  # computed
    window_pairs: int  # computed or found equal


B = TypeVar("B", RunBeat, WorkerBeat)


def parse_beat(kind: type[B], data: bytes) -> B | None:
    """None unless it is one of ours."""
    try:
        beat = typed(kind, json.loads(data))
    except (ValueError, RecursionError):
        return None
    numbers = [value for value in vars(beat).values() if isinstance(value, int | float)]
    is_sound = beat.next_s <= MOST_PAUSE_S and all(0 <= number <= MOST for number in numbers)
    return beat if is_sound else None
