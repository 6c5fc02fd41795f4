"""What a run leaves of itself in runs.jsonl."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone

from flowprep.errors import StoreError
from flowprep.run.prepare import Request, Work
from flowprep.run.progress import Display
from flowprep.run.schedule import Outcome
from flowprep.shard.layout import Layout
from flowprep.shard.runs import Run, append_run
from flowprep.storage import briefly


def logged(
    layout: Layout, request: Request, work: Work, display: Display, make: Callable[[], Outcome]
) -> Outcome:
    """Let `make` make shards, and append a line that says what came of it, however it ends."""
    started, ended = datetime.now(timezone.utc), "stopped"
    try:
        outcome = make()
        ended = "interrupted" if outcome.interrupted else "done"
        return outcome
    except KeyboardInterrupt:
        ended = "interrupted"
        raise
    finally:
        try:
            with briefly():
                append_run(layout.runs, _line(started, ended, request, work, display))
        except (OSError, StoreError) as error:
            why = error.message if isinstance(error, StoreError) else error.strerror or error
            display.note(f"this run is not in {layout.runs.name}: {why}")


def _line(started: datetime, ended: str, request: Request, work: Work, display: Display) -> Run:
    tally = display.tally
    return Run(
        started=started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        elapsed_s=round(tally.elapsed_s, 3),
        ended=ended,
        clips=tally.counts["clips"],
        failures=tally.counts["failures"],
        flows=tally.counts["flows"],
        identical=tally.counts["identical"],
        cpu_s={name: round(seconds, 3) for name, seconds in sorted(tally.cpu_s.items())},
        wall_s={name: round(seconds, 3) for name, seconds in sorted(tally.wall_s.items())},
        workers=len(tally.machines),
        machines=dict(Counter(tally.machines.values())),
        engine=work.settings.engine,
        executor=request.resources.executor,
        versions=work.versions,
    )
