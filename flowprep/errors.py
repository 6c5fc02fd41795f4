"""Ways to go wrong: the user must act (FlowprepError), a clip is lost (ClipError), a GPU has failed
under this process (DeviceLost).
"""

from __future__ import annotations

import traceback
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
    "crashed",  # it ended the process that worked on it
    "timeout",  # it made no progress for too long
    "out-of-memory",  # it took more memory than a worker may have
]
REASONS: tuple[str, ...] = get_args(Reason)

RETRIABLE: frozenset[str] = frozenset(
    {"missing", "unreadable", "changed", "flow-error", "timeout", "out-of-memory"}
)
"""Reasons that may go away without anybody repairing the file."""

ADVICE: dict[str, str] = {
    "missing": "bring the file back",
    "unreadable": "make the file readable",
    "empty-file": "get the file again",
    "not-a-video": "get the file again, or take it out of the source",
    "no-video-stream": "take it out of the source",
    "unsupported-codec": "convert the file to H.264, say",
    "too-large": "scale or cut the file first",
    "too-short": "take it out of the source; a clip needs two frames",
    "truncated": "get the file again: its end is missing",
    "frames-missing": "get the file again, or encode it anew; of imported frames look at --style",
    "decode-error": "get the file again, or encode it anew",
    "changed": "wait until nothing writes to the file any more",
    "flow-error": "try another --engine on it and report it",
    "encode-error": "try other codecs on it and report it",
    "crashed": "encode the file anew, and report it to the library that crashed",
    "timeout": "give --clip-timeout more seconds, or encode the file anew",
    "out-of-memory": "give --worker-mem more GiB, use fewer --workers, or scale the file first",
}
"""What to do about a failed clip before `extract --retry-failed`, by reason."""


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


class StoreError(FlowprepError):
    """Object storage as a whole does not serve: its credentials, bucket, rights or room."""


class StoreDown(StoreError):
    """Object storage did not answer, for longer than one waits. Later it may."""


class ClipError(Exception):
    """One video or clip cannot be made; the run goes on. Becomes a `records.Failure`."""

    def __init__(self, reason: Reason, message: str) -> None:
        if reason not in REASONS:
            raise ValueError(f"unknown reason {reason!r}; allowed: {', '.join(REASONS)}")
        super().__init__(message)
        self.reason = reason
        self.message = message

    def below(self, root: object) -> ClipError:
        """The same, with paths told from `root`: what is recorded must not depend on the place."""
        return ClipError(self.reason, self.message.replace(f"{root}/", ""))

    @property
    def retriable(self) -> bool:
        return self.reason in RETRIABLE

    def __reduce__(self) -> tuple[type[ClipError], tuple[Reason, str]]:
        return type(self), (self.reason, self.message)


class DeviceLost(Exception):
    """A GPU failed, and this process can use it no more; another process may."""


def reason_of(error: Exception, otherwise: Reason) -> Reason:
    """Why a clip failed with this exception."""
    return "out-of-memory" if isinstance(error, MemoryError) else otherwise


def portable(error: Exception) -> Exception:
    """An exception that survives the way to another process, whatever class it was."""
    if isinstance(error, FlowprepError):
        return error
    if isinstance(error, OSError):
        return OSError(error.errno, error.strerror or str(error), error.filename)
    return RuntimeError("".join(traceback.format_exception(error)).rstrip())
