"""Which tars are meant, and the rows of their index."""

from __future__ import annotations

import glob
import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from braceexpand import braceexpand

from flowprep.errors import FlowprepError
from flowprep.shard.index import INDEX_SCHEMA, load_dataset
from flowprep.shard.layout import Layout
from flowprep.shard.tables import parquet_file
from flowprep.storage import Place, RemotePath, file_names, place_of, sha256_file

MEMBERS = ("flow", "json", "rgb")
PLACES = [f"{member}_{what}" for member in MEMBERS for what in ("offset", "size")]
COLUMNS = ["shard", "key", "path", "split", "label", "n_frames", "height", "width", *PLACES]
SCHEMA = pa.schema([INDEX_SCHEMA.field(name) for name in COLUMNS])
WILD = "*?["


def find_tars(shards: str) -> tuple[Layout, list[str] | None]:
    """The dataset, and the names of the shards that are meant; None = all it has.

    `shards` is the folder of a dataset, or tars in it: a path, a pattern with braces or stars, or
    a list parted by commas. Raises FlowprepError when they are not there or in several folders.
    """
    place = place_of(shards, "--shards")
    if place.is_dir():
        return Layout(place), None
    tars = [tar for pattern in _expanded(shards) for tar in _globbed(pattern)]
    if odd := [tar for tar in tars if tar.suffix != ".tar"]:
        raise FlowprepError(
            f"--shards {odd[0]} is neither a folder nor a .tar",
            "give the folder that flowprep extract wrote, or tars in it",
        )
    if len(folders := sorted({str(tar.parent) for tar in tars})) > 1:
        raise FlowprepError(
            f"--shards names tars in {len(folders)} folders: {folders[0]}, {folders[1]}",
            "give tars of one dataset",
        )
    return Layout(tars[0].parent), sorted({tar.stem for tar in tars})


def _expanded(shards: str) -> list[str]:
    """The members of a list with braces: a{0..2}.tar,b.tar has four."""
    try:
        return [path for path in braceexpand(f"{{{shards},}}") if path]
    except ValueError as error:
        raise FlowprepError(
            f"--shards {shards}: {error}", "write a range as train-{000000..000999}.tar"
        ) from error


def _globbed(pattern: str) -> list[Place]:
    place = place_of(pattern, "--shards")
    if not any(letter in pattern for letter in WILD):
        return [place]
    if isinstance(place, RemotePath):
        names = file_names(place.parent)
        found: list[Place] = [place.parent / n for n in names if fnmatchcase(n, place.name)]
    else:
        found = [Path(path) for path in sorted(glob.glob(pattern))]
    if not found:
        raise FlowprepError(
            f"--shards {pattern} matches no file",
            "check the path; quote it, so that the shell does not read it",
        )
    return found


def read_index(layout: Layout, names: list[str] | None) -> Any:
    """COLUMNS of index.parquet as a pyarrow table, of the shards `names` or of all.

    Raises FlowprepError when there is no index, or no sample, or a tar is missing.
    """
    index = _filtered(layout, _parquet(layout), names)
    if not len(index):
        raise FlowprepError(
            f"{layout.out} has no sample", "see _flowprep/failures.parquet for why clips failed"
        )
    _check_tars(layout, pc.unique(index["shard"]).to_pylist())
    if not pc.all(pc.greater_equal(index["n_frames"], 2)).as_py():
        key = index.filter(pc.less(index["n_frames"], 2))["key"][0]
        raise FlowprepError(
            f"sample {key} has fewer than two frames, so it has no flow",
            f"flowprep never writes such: run flowprep verify {layout.out}",
        )
    return index


def vouched(layout: Layout) -> str:
    """16 digits of the hash that dataset.json has of itself, and by it of all files.

    Raises FlowprepError when it, or a table that is read here, is not as flowprep wrote it.
    """
    hint = f"run flowprep verify {layout.out}"
    if layout.pending.exists():
        raise FlowprepError(f"{layout.out} is being changed, or that was interrupted", hint)
    try:
        body = load_dataset(_regular(layout.dataset))
        for path in (layout.index, layout.classes, layout.config):
            if sha256_file(_regular(path)) != body["files"].get(path.name):
                raise FlowprepError(f"{path} is not the one that dataset.json vouches for", hint)
        return str(json.loads(layout.dataset.read_bytes())["sha256"])[:16]
    except (OSError, ValueError) as error:
        raise FlowprepError(f"{layout.dataset} does not read: {error}", hint) from error


def _regular(path: Place) -> Place:
    """The path, unless what is there would never end. Raises ValueError."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path.name} is not a file")
    return path


def _parquet(layout: Layout) -> Any:
    try:
        with parquet_file(_regular(layout.index)) as file:
            index = file.read(columns=COLUMNS)
        if not index.schema.equals(SCHEMA) or any(column.null_count for column in index.columns):
            raise ValueError("it has other columns than flowprep writes")
        return index
    except FileNotFoundError:
        raise FlowprepError(
            f"there is no {layout.index}",
            "give the folder that flowprep extract wrote; if it did not finish, run it again",
        ) from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FlowprepError(
            f"{layout.index} does not read: {error}", f"run flowprep verify {layout.out}"
        ) from error


def _filtered(layout: Layout, index: Any, names: list[str] | None) -> Any:
    if names is None:
        return index
    without_sample = sorted(set(names) - set(pc.unique(index["shard"]).to_pylist()))
    if odd := [name for name in without_sample if not layout.mark(name).exists()]:
        raise FlowprepError(
            f"{len(odd)} of {len(names)} shards are unknown to {layout.out}: {odd[0]}.tar",
            "check the range, and that flowprep extract finished",
        )
    return index.filter(pc.is_in(index["shard"], value_set=pa.array(names)))


def _check_tars(layout: Layout, names: list[str]) -> None:
    """Raise FlowprepError unless the tars are there."""
    if missing := [name for name in sorted(names) if not layout.tar(name).is_file()]:
        raise FlowprepError(
            f"{len(missing)} of {len(names)} shards are gone: {layout.tar(missing[0])}",
            "copy them there, or give --shards those that are",
        )
