"""The readers by the name that --labels gives them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from flowprep.errors import FlowprepError
from flowprep.labels import hmdb51, kinetics, ssv2, table, ucf101
from flowprep.labels.base import Reader

READERS: dict[str, Reader] = {
    "kinetics": kinetics.READER,
    "ucf101": ucf101.READER,
    "hmdb51": hmdb51.READER,
    "ssv2": ssv2.READER,
    "csv": table.READER,
}


def chosen(texts: Iterable[str]) -> tuple[str | None, tuple[str, ...]]:
    """What --labels says, given once or more: (kind, places). None when it is not given.

    Raises FlowprepError for an unknown kind, for two kinds, and for a dataset without a place.
    """
    kinds: dict[str, None] = {}
    places: list[str] = []
    for text in texts:
        name, _, rest = text.partition(":")
        if name not in READERS and text not in ("auto", "none"):
            usages = ", ".join(reader.usage for reader in READERS.values())
            raise FlowprepError(
                f"--labels {text!r} is not known", f"allowed: auto, none, or as {usages}"
            )
        kinds[name] = None
        places += _places(rest)
    if len(kinds) > 1:
        raise FlowprepError(
            f"--labels says {' and '.join(kinds)}", "repeat it for files of one dataset only"
        )
    kind = next(iter(kinds), None)
    if kind and kind in READERS and not places:
        raise no_places(kind)
    return kind, tuple(places)


def no_places(kind: str) -> FlowprepError:
    return FlowprepError(
        f"labels of {kind} need its annotation files", f"give them: --labels {READERS[kind].usage}"
    )


def _places(rest: str) -> list[str]:
    """One, or several with commas between them; a file may have a comma in its name."""
    parts = [rest] if Path(rest).exists() else rest.split(",")
    return [part for part in parts if part]
