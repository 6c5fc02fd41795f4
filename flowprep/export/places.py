"""Where each sample goes: `class/video`, safe whatever strangers called their files."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

from flowprep.shard.schema import SampleRow

MAX_NAME_BYTES = 200


def places(
    rows: Iterable[SampleRow], classless: bool = False, to_first_dot: bool = False
) -> dict[str, str]:
    """key -> "class/video", or "video" without labels or with `classless`.

    The video's name is that of its file without the suffix (all suffixes, with `to_first_dot`), and
    `_0001` where a video gave more than one sample. What two samples would share, in capitals or
    small letters, neither gets: they are called by their keys.
    """
    rows = list(rows)
    n_clips = Counter(row.path for row in rows)
    classless = classless or not any(row.label for row in rows)
    folders = {r.key: "" if classless else f"{safe_name(r.label or 'unlabelled')}/" for r in rows}
    names = {row.key: _video_name(row, n_clips[row.path] > 1, to_first_dot) for row in rows}
    while clashes := _clashes({key: folders[key] + name for key, name in names.items()}) - {
        key for key, name in names.items() if name == key
    }:
        names |= {key: key for key in clashes}
    return {key: folders[key] + name for key, name in names.items()}


def _clashes(found: dict[str, str]) -> set[str]:
    """Keys of the samples that would share a place on some file system."""
    folded = {key: unicodedata.normalize("NFKC", place).casefold() for key, place in found.items()}
    counts = Counter(folded.values())
    return {key for key, place in folded.items() if counts[place] > 1}


def _video_name(row: SampleRow, is_one_of_many: bool, to_first_dot: bool) -> str:
    path = PurePosixPath(row.path)
    stem = path.name.split(".")[0] or path.stem if to_first_dot else path.stem
    number = f"_{row.clip_number:04d}" if is_one_of_many else ""
    return safe_name(stem) + number


def safe_name(name: str) -> str:
    """A file name that stays in its folder, and that readers of lists do not cut at a blank."""
    kept = "".join(c if _is_safe(c) else "_" for c in name)
    kept = kept.encode("utf-8", "ignore")[:MAX_NAME_BYTES].decode("utf-8", "ignore")
    return "_" + kept[1:] if kept.startswith(".") else kept or "_"


def _is_safe(letter: str) -> bool:
    return letter.isprintable() and not letter.isspace() and letter not in '/\\:"'
