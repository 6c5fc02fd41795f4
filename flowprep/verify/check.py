"""`flowprep verify`: all findings of a dataset."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from flowprep.processes import process_pool
from flowprep.records import Finding
from flowprep.shard.index import Mark
from flowprep.shard.layout import Layout
from flowprep.verify.deep import check_samples
from flowprep.verify.shallow import (
    check_dataset,
    check_shard,
    load_marks,
    plain,
    require_dataset,
)


def verify(
    out: Path, *, deep: bool = False, on_shard: Callable[[int, int], None] | None = None
) -> list[Finding]:
    """Everything wrong with the dataset at `out`; [] when it is whole.

    Shallow: every byte against the hashes that vouch for it. Deep: every sample decoded as well.
    `on_shard(done, total)` is called after each shard. Raises FlowprepError when there is no
    dataset.
    """
    layout = require_dataset(out)
    marks, findings = load_marks(layout)
    findings += check_dataset(layout, marks)
    classes = _classes(layout)
    work = partial(_check, layout, classes, deep)
    with _executor(deep, len(marks)) as executor:
        results: Iterable[list[Finding]] = executor.map(work, marks)
        for number, found in enumerate(results, start=1):
            findings += found
            if on_shard:
                on_shard(number, len(marks))
    return list(_unique(findings))


def _executor(deep: bool, n_marks: int) -> AbstractContextManager[Executor]:
    workers = max(1, min(os.cpu_count() or 1, n_marks))
    if deep:
        return process_pool(workers)
    return ThreadPoolExecutor(workers)


def _check(layout: Layout, classes: list[str], deep: bool, mark: Mark) -> list[Finding]:
    findings = check_shard(layout, mark)
    if deep:
        findings += check_samples(layout, mark, classes)
    return findings


def _classes(layout: Layout) -> list[str]:
    try:
        return plain(layout.classes).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []


def _unique(findings: list[Finding]) -> Iterator[Finding]:
    seen = set()
    for finding in findings:
        identity = (finding.code, finding.file, finding.shard, finding.key, finding.message)
        if identity not in seen:
            seen.add(identity)
            yield finding
