"""`flowprep export`: every sample that is asked for, on all cores; what is there already stays."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from flowprep.errors import FlowprepError
from flowprep.export.formats import Form, write_sample
from flowprep.export.ledger import Entry, Ledger, open_ledger, size_bytes
from flowprep.export.lists import RELATIVE, lists
from flowprep.export.places import places
from flowprep.export.source import finished_samples, identity
from flowprep.export.stale import Stale, clear_stale, remove
from flowprep.processes import process_pool, usable_cores
from flowprep.shard.layout import Layout, layout_of
from flowprep.shard.reader import damaged_samples, read_current
from flowprep.shard.schema import SampleRow
from flowprep.storage import Place, plain, write_whole

Watch = Callable[[int, int], None]
"""Told how many samples are done, and how many there are to do."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the user asked for; `keys` and `split` choose, None and "" take all.

    `prune` deletes samples of earlier runs that the dataset has no more.
    """

    shards: str
    out: str
    form: Form
    keys: frozenset[str] | None = None
    split: str = ""
    prune: bool = False


@dataclass(kw_only=True)
class Exported:
    """What came of an export."""

    n_made: int = 0
    n_there: int = 0  # from runs before this one
    problems: dict[str, str] = field(default_factory=dict)  # key -> what is wrong with the sample
    stale: Stale = field(default_factory=Stale)
    unfinished: bool = False  # the dataset is to have more than it has now


@dataclass(frozen=True, kw_only=True)
class Errand:
    """One sample to export."""

    tar: Place
    row: SampleRow
    form: Form
    scratch: Path
    place: str
    target: Path

    def is_done(self, ledger: Ledger) -> bool:
        return ledger.has(self.row.key, self.row.sha256, self.place, self.target)


def export(order: Order, watch: Watch | None = None) -> Exported:
    """Export what is asked for and not there yet, and list what is there.

    Raises FlowprepError when the user must act: no dataset, an unknown key or split, another export
    in the folder, a full disk. What is finished stays, and a rerun goes on.
    """
    layout = layout_of(order.shards)
    samples = finished_samples(layout, order.shards, may_be_empty=order.prune)
    rows = [row for row, _ in samples.values()]
    is_flat = order.form.style == "tsn"
    placed = places(rows, classless=is_flat, to_first_dot=is_flat)
    chosen = _chosen(order, rows)
    refuse_blanks(order)
    if layout.holds(Path(order.out)):
        raise FlowprepError(f"--out {order.out} lies in the dataset", "give another folder")
    with open_ledger(order.out, order.form, identity(layout)) as ledger:
        stale = clear_stale(ledger, order.form, placed, order.prune)
        errands = {
            row.key: Errand(
                tar=layout.tar(shard),
                row=row,
                form=order.form,
                scratch=ledger.scratch,
                place=placed[row.key],
                target=ledger.out / order.form.to / f"{placed[row.key]}{order.form.suffix}",
            )
            for row, shard in samples.values()
        }
        there = {key for key, errand in errands.items() if errand.is_done(ledger)}
        todo = [errands[row.key] for row in chosen if row.key not in there]
        unfinished = not layout.dataset.exists()
        told = Exported(n_there=len(chosen) - len(todo), stale=stale, unfinished=unfinished)
        there |= _run(todo, ledger, told, watch or (lambda done, total: None))
        if order.form.to == "rawframes":
            _write_lists(order.form, layout, ledger, [errands[key] for key in there])
    return told


def refuse_blanks(order: Order) -> None:
    """Raise FlowprepError for a folder that the lists of this style cannot name."""
    style, out = order.form.style, Path(order.out).resolve()
    if style and style not in RELATIVE and any(letter.isspace() for letter in str(out)):
        raise FlowprepError(
            f"--out {out}: readers of {style} lists cut a line at every blank",
            "give a folder without blanks in its path",
        )


def _chosen(order: Order, rows: list[SampleRow]) -> list[SampleRow]:
    splits = {row.split for row in rows}
    if order.split and order.split not in splits:
        raise FlowprepError(
            f"--split {order.split}: no sample is in it", f"there are: {', '.join(sorted(splits))}"
        )
    if order.keys is not None and (unknown := order.keys - {row.key for row in rows}):
        raise FlowprepError(
            f"--keys names {len(unknown)} samples that are not there, {min(unknown)!r} for one",
            "give keys of the dataset, one a line; a failed clip has no sample",
        )
    return [
        row
        for row in rows
        if (not order.split or row.split == order.split)
        and (order.keys is None or row.key in order.keys)
    ]


def _run(errands: list[Errand], ledger: Ledger, told: Exported, watch: Watch) -> set[str]:
    """Keys of the samples that were made."""
    made = set()
    watch(0, len(errands))
    n_workers = max(1, min(usable_cores(), len(errands)))
    with process_pool(n_workers) as pool:
        for number, (errand, problem) in enumerate(_outcomes(pool, errands, 4 * n_workers), 1):
            row = errand.row
            if problem:
                told.problems[row.key] = problem
            else:
                made.add(row.key)
                n_bytes = size_bytes(errand.target)
                ledger.add(row.key, Entry(row.sha256, n_bytes, errand.place))
            watch(number, len(errands))
    told.n_made = len(made)
    return made


def _outcomes(
    pool: ProcessPoolExecutor, errands: Iterable[Errand], n_ahead: int
) -> Iterator[tuple[Errand, str]]:
    """(errand, what is wrong with its sample or "") as they finish."""
    left = iter(errands)
    asked: dict[Future[str], Errand] = {}
    while True:
        asked |= {pool.submit(run_errand, e): e for e in islice(left, n_ahead - len(asked))}
        if not asked:
            return
        for future in wait(asked, return_when=FIRST_COMPLETED).done:
            errand = asked.pop(future)
            yield errand, _result(future, errand)


def _result(future: Future[str], errand: Errand) -> str:
    """Raises FlowprepError when no other sample can do better."""
    again = "run the same command again: it goes on where it stopped"
    try:
        return future.result()
    except BrokenProcessPool as error:
        what = f"a process died while it exported {errand.row.key} or a sample beside it"
        raise FlowprepError(what, f"see whether memory ran out, and {again}") from error
    except OSError as error:
        what = f"cannot write {errand.target}: {error.strerror or error}"
        todo = "make room" if error.errno in NO_ROOM else "mend it"
        raise FlowprepError(what, f"{todo} and {again}") from error


def run_errand(errand: Errand) -> str:
    """Export one sample; returns what is wrong with it, "" when nothing is.

    Raises OSError when the disk does not take it.
    """
    import cv2

    cv2.setNumThreads(1)
    try:
        if list(damaged_samples(plain(errand.tar), [errand.row])):
            return f"its bytes in {errand.tar.name} are damaged"
        sample = read_current(errand.tar, errand.row)
    except (ValueError, OSError) as error:
        return f"{errand.tar.name}: {error}"
    aside = errand.scratch / f"{errand.row.key}{errand.form.suffix}"
    try:
        write_sample(errand.form, sample, aside)
    except (ValueError, KeyError, FlowprepError) as error:
        remove(aside)
        return f"it does not decode: {error}"
    remove(errand.target)  # of a run that ended before it could say so
    errand.target.parent.mkdir(parents=True, exist_ok=True)
    aside.replace(errand.target)
    return ""


def _write_lists(form: Form, layout: Layout, ledger: Ledger, there: list[Errand]) -> None:
    """Of all that lies in the folder, whichever run made it."""
    found = lists(ledger.out, form, [(errand.row, errand.place) for errand in there])
    ledger.write_lists(found)
    if classes := layout.classes.read_bytes() if layout.classes.exists() else b"":
        write_whole(ledger.out / "classes.txt", classes, ledger.scratch)
