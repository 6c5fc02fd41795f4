"""`flowprep verify`: all findings of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from functools import partial

from flowprep.processes import process_pool, usable_cores
from flowprep.records import Finding
from flowprep.shard.index import Mark
from flowprep.shard.layout import Layout, layout_of
from flowprep.storage import Place, plain
from flowprep.verify.deep import check_samples
from flowprep.verify.shallow import (
    check_dataset,
    check_shard,
    load_marks,
)

Watch = Callable[[int, int], None]
"""Told the bytes of tars that are checked, and those that there are."""


def verify(out: Place, *, deep: bool = False, watch: Watch | None = None) -> list[Finding]:
    """Everything wrong with the dataset at `out`; [] when it is whole.

    Shallow: every byte against the hashes that vouch for it. Deep: every sample decoded as well.
    Raises FlowprepError when there is no dataset.
    """
    layout = layout_of(out)
    marks, findings = load_marks(layout)
    findings += check_dataset(layout, marks)
    work = partial(_check, layout, _classes(layout), deep)
    with _executor(deep, len(marks)) as executor:
        checks = {executor.submit(work, mark): mark.tar_bytes for mark in marks}
        _watched(checks, watch or (lambda done, total: None))
        for check in checks:
            findings += check.result()
    return list(_unique(findings))


def _watched(checks: dict[Future[list[Finding]], int], watch: Watch) -> None:
    """Wait for all; each has its bytes."""
    done, total = 0, sum(checks.values())
    watch(done, total)
    for check in as_completed(checks):
        done += checks[check]
        watch(done, total)


def _executor(deep: bool, n_marks: int) -> AbstractContextManager[Executor]:
    workers = max(1, min(usable_cores(), n_marks))
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
