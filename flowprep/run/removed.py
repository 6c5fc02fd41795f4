"""What was removed stays out: of the videos of a source, those that may be in the dataset."""

from __future__ import annotations

from collections.abc import Iterable

from flowprep.errors import FlowprepError
from flowprep.records import Video
from flowprep.shard.index import load_dataset
from flowprep.shard.layout import Layout
from flowprep.shard.removed import Removed, load_removed
from flowprep.storage import plain, sha256_file


def known_removed(layout: Layout) -> Removed:
    """What must not come back. Raises FlowprepError when nothing tells it any more."""
    if not layout.config.exists() and not layout.removed.exists():
        return Removed()
    try:
        _check_vouched(layout)
        return load_removed(layout.removed)
    except (ValueError, OSError) as error:
        raise FlowprepError(
            f"{layout.removed} is damaged ({error}), and nothing else tells what was removed",
            "put a copy of it back, or extract into another folder",
        ) from error


def _check_vouched(layout: Layout) -> None:
    """Raise ValueError when dataset.json is there and knows another table."""
    try:
        expected = load_dataset(layout.dataset)["files"].get(layout.removed.name)
    except (ValueError, OSError):
        return
    if sha256_file(plain(layout.removed)) != expected:
        raise ValueError("it is not as written")


def kept_videos(videos: Iterable[Video], removed: Removed) -> list[Video]:
    """Those that were not removed as a whole: nobody needs to open the others."""
    if not removed.records:
        return list(videos)
    return [video for video in videos if not removed.has_path(video.path)]
