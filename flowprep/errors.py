"""Ways to go wrong: the user must act (FlowprepError), a clip is lost (ClipError), a GPU has failed
under this process (DeviceLost).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

Reason = Literal[
    "missing",  # the file is not there
    "unreadable",  # the file is there, the system refuses to read it
    "empty-file",  # zero bytes
    "not-a-video",  # no allowed container recognises the bytes (text, playlist, image, archive)
    "no-video-stream",  # audio only
    "unsupported-codec",  # this FFmpeg build has no decoder for it
    "too-large",  # dimensions or frame count beyond the limits
    "too-short",  # fewer than two frames are left, so there is no flow
    "truncated",  # the file ends before its header says it does
    "frames-missing",  # the decoder returned fewer frames than the container lists
    "decode-error",  # the decoder refused the data
    "changed",  # the file is no longer the one that was probed
    "flow-error",  # the engine failed on this clip
    "encode-error",  # the codec failed on this clip
]
REASONS: tuple[str, ...] = get_args(Reason)

RETRIABLE: frozenset[str] = frozenset({"missing", "unreadable", "changed", "flow-error"})
"""Reasons that may go away without anybody repairing the file."""


class FlowprepError(Exception):
    """The user must act. `message` says what and which value, `hint` what to do next."""

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nHint: {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[type[FlowprepError], tuple[str, str]]:
        return type(self), (self.message, self.hint)


class ClipError(Exception):
    """One video or clip cannot be made; the run goes on. Becomes a `records.Failure`."""

    def __init__(self, reason: Reason, message: str) -> None:
        if reason not in REASONS:
            raise ValueError(f"unknown reason {reason!r}; allowed: {', '.join(REASONS)}")
        super().__init__(message)
        self.reason = reason
        self.message = message

    def below(self, root: Path) -> ClipError:
        """The same, with paths told from `root`: what is recorded must not depend on the place."""
        return ClipError(self.reason, self.message.replace(f"{root}/", ""))

    @property
    def retriable(self) -> bool:
        return self.reason in RETRIABLE

    def __reduce__(self) -> tuple[type[ClipError], tuple[Reason, str]]:
        return type(self), (self.reason, self.message)


class DeviceLost(Exception):
    """A GPU failed, and this process can use it no more; another process may."""
