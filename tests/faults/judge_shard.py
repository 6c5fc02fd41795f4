"""What each reader of a dataset makes of one damaged file in it."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flowprep.errors import FlowprepError
from flowprep.records import Finding
from flowprep.shard.index import load_index
from flowprep.shard.layout import Layout
from flowprep.shard.reader import iter_samples, read_at
from flowprep.verify import check
from flowprep.verify.tell import tell_as_json, tell_findings
from train.data.loader import eval_loader
from train.data.table import load_table
from train.data.windows import WindowConfig

Become = Literal["bytes", "gone", "pipe", "link", "folder"]
SAME, DIFFERS, FOUND, REFUSED, SILENT = "same", "differs", "found", "refused", "silent"
DATASET = "_flowprep/dataset.json"
WINDOWS = WindowConfig(frames=5, crop=32)
REFUSALS: dict[str, tuple[type[Exception], ...]] = {
    "iter_samples": (ValueError, OSError),
    "load_index": (ValueError, OSError),
    "read_at": (ValueError, OSError),
    "verify": (),
    "verify --deep": (),
    "train": (FlowprepError,),
}
"""What each reader may raise over damage; the two verify answer with findings instead."""


@dataclass(frozen=True)
class Damage:
    """A file of the dataset at `pristine`, and what it becomes in the copy at `copy`."""

    pristine: Path
    copy: Path
    name: str
    data: bytes = b""
    become: Become = "bytes"
    signed: bytes = b""  # another dataset.json, which vouches for `data`; b"" = the old one


@dataclass
class Verdict:
    """Reader -> how it ended: SAME, DIFFERS, "found", "refused", or what went wrong."""

    ended: dict[str, str] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    strays: list[str] = field(default_factory=list)  # files that appeared


def ready() -> None:
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    check._executor = lambda deep, n_marks: ThreadPoolExecutor(1)  # type: ignore[assignment]


def judge(damage: Damage) -> Verdict:
    """Damage the copy, read it in every way, and mend it."""
    if not damage.copy.exists():
        shutil.copytree(damage.pristine, damage.copy)
    path = damage.copy / damage.name
    _become(path, damage)
    if damage.signed:
        (damage.copy / DATASET).write_bytes(damage.signed)
    os.chdir(damage.copy.parent)
    before, verdict = _listing(damage.copy.parent), Verdict()
    try:
        for reader, read in READERS.items():
            verdict.ended[reader], verdict.messages[reader] = _ended(reader, read, damage)
        verdict.strays = sorted(_listing(damage.copy.parent) - before)
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for name in (damage.name, DATASET):
            shutil.copyfile(damage.pristine / name, damage.copy / name)
    return verdict


def _become(path: Path, damage: Damage) -> None:
    path.unlink()
    if damage.become == "bytes":
        path.write_bytes(damage.data)
    elif damage.become == "pipe":
        os.mkfifo(path)
    elif damage.become == "link":
        path.symlink_to("/dev/zero")
    elif damage.become == "folder":
        path.mkdir()


def _listing(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}


def _ended(reader: str, read: Callable[[Path], Any], damage: Damage) -> tuple[str, str]:
    try:
        got = read(damage.copy)
    except REFUSALS[reader] as error:
        return REFUSED, f"{type(error).__name__}: {error}"
    except Exception as error:  # noqa: BLE001 - what is judged here
        return f"BUG {type(error).__name__}", str(error)[:300]
    if reader.startswith("verify"):
        return (FOUND if got else SILENT), ""
    return (SAME if _equal(got, _whole(reader, damage.pristine)) else DIFFERS), ""


@cache
def _whole(reader: str, pristine: Path) -> Any:
    return READERS[reader](pristine)


def _equal(one: Any, other: Any) -> bool:
    return bool(one == other)


def _all_samples(out: Path) -> Any:
    return [
        (sample.key, sample.members)
        for tar in sorted(out.glob("*.tar"))
        for sample in (iter_samples(tar) if not tar.is_fifo() else ())
    ]


def _rows(out: Path) -> Any:
    return load_index(Layout(out).index)


def _by_place(out: Path) -> Any:
    layout = Layout(out)
    try:
        rows = load_index(layout.index)
    except (ValueError, OSError):
        return None
    tars = {path.stem for path in out.glob("*.tar") if path.is_file()}
    return [read_at(layout.tar(shard), row) for shard, row in rows if shard in tars]


def _shallow(out: Path) -> Any:
    return _told(check.verify(out), out)


def _deep(out: Path) -> Any:
    return _told(check.verify(out, deep=True), out)


def _told(findings: list[Finding], out: Path) -> list[Finding]:
    """Printed too, as people and as machines get them: nothing in names may break that."""
    for tell in (tell_findings, tell_as_json):
        screen = io.TextIOWrapper(io.BytesIO(), "utf-8")
        with contextlib.redirect_stdout(screen):
            tell(findings, out, deep=False)
        screen.flush()
        shown = screen.buffer.getvalue().decode()  # type: ignore[attr-defined]
        assert all(c.isprintable() or c == "\n" for c in shown), shown
    return findings


def _trained_on(out: Path) -> Any:
    """Labels and windows of all samples, as bytes."""
    table = load_table(str(out), val_share=0)
    made = io.BytesIO()
    for batch in eval_loader(table, WINDOWS, batch=4):
        for tensor in batch:
            made.write(np.ascontiguousarray(tensor.numpy()).tobytes())
    return made.getvalue(), table.key_N.to_pylist(), table.classes


READERS: dict[str, Callable[[Path], Any]] = {
    "iter_samples": _all_samples,
    "load_index": _rows,
    "read_at": _by_place,
    "verify": _shallow,
    "verify --deep": _deep,
    "train": _trained_on,
}
