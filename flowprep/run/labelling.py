"""The labels of a source: as its folders or its list have them, or as annotation files say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from flowprep.errors import FlowprepError
from flowprep.labels.join import join
from flowprep.labels.registry import READERS, no_places
from flowprep.run.progress import Display
from flowprep.shard.plan import PlanRow
from flowprep.sources import Source


def labelled(
    source: Source,
    kind: str,
    places: Sequence[str],
    report_file: str,
    planned: Iterable[PlanRow],
    display: Display,
) -> tuple[Source, list[str]]:
    """The videos that have a label, and all classes of the dataset by index.

    Where annotation files have no say, the source as it is, and no classes. The report is shown,
    and written to `report_file` before anything in it is refused. Raises FlowprepError.
    """
    if kind not in READERS:
        if report_file:
            raise FlowprepError(
                f"--join-report has nothing to report with --labels {kind}",
                f"give annotation files as well: --labels {READERS['kinetics'].usage}",
            )
        return source, []
    if not places:
        raise no_places(kind)
    annotations = READERS[kind].load(places)
    before = {row.path: (row.split, row.label) for row in planned}
    videos, report = join(kind, READERS[kind], source.videos, annotations, before)
    display.joined(report)
    if report_file:
        Path(report_file).write_bytes(report.to_csv())
    report.check(READERS[kind])
    return replace(source, videos=videos), annotations.classes
