"""What goes wrong with object storage: what may pass is tried again, what will not is told."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, TypeVar

from flowprep.errors import FlowprepError, StoreDown, StoreError

T = TypeVar("T")
PATIENCE_S = 180.0
"""So long an operation is tried again before the storage counts as down."""
BRIEF_S = 10.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 20.0

Verdict = Literal["again", "object", "store", "bug"]
"""Try again; it is about this one object; it is about all of them; it is not about storage."""

NO_BUCKET = frozenset(
    {
        "NoSuchBucket", "InvalidBucketName", "InvalidRegionError",
    }
)  # fmt: skip
FULL = frozenset(
    {
        "QuotaExceeded", "QuotaExceededException", "XMinioStorageFull",
        "XMinioAdminBucketQuotaExceeded", "InsufficientStorage", "507",
    }
)  # fmt: skip
NOT_LET_IN = frozenset(
    {
        "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "SignatureDoesNotMatch",
        "InvalidToken", "TokenRefreshRequired", "AccountProblem", "AllAccessDisabled",
        "RequestTimeTooSkewed", "NoCredentialsError", "PartialCredentialsError",
        "ProfileNotFound", "TokenRetrievalError", "CredentialRetrievalError",
        "UnauthorizedSSOTokenError", "DefaultCredentialsError", "RefreshError", "401", "402",
    }
)  # fmt: skip
OF_THE_STORE = NO_BUCKET | FULL | NOT_LET_IN
"""Codes and names of errors that every further object would meet as well."""
PASSING_STATUS = frozenset({408, 425, 429})
NOT_OFFERED = 501
PASSING = frozenset(
    {
        "RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch",
        "XAmzContentChecksumMismatch", "InvalidPart", "NoSuchUpload", "OperationAborted",
        "ConditionalRequestConflict", "SlowDown", "Throttling", "ThrottlingException",
        "RequestThrottled", "RequestLimitExceeded", "BandwidthLimitExceeded",
        "BadHttpMessage", "ClientPayloadError",
    }
)  # fmt: skip
"""Codes and names of errors that may pass although their status says that the question was wrong:
bytes that were lost or changed on the way (aiohttp calls an answer that was cut off 400), and too
many questions.
"""
ABOUT_ONE = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError)
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
BUGS = (ImportError, ValueError, TypeError, NotImplementedError, LookupError, AttributeError)


_patience_s: ContextVar[float | None] = ContextVar("patience_s", default=None)


@contextmanager
def briefly() -> Iterator[None]:
    """What is done in here is not worth waiting for."""
    before = _patience_s.set(min(BRIEF_S, PATIENCE_S))
    try:
        yield
    finally:
        _patience_s.reset(before)


def attempt(operation: Callable[[], T], url: str) -> T:
    """What an operation that may be repeated gives, tried for PATIENCE_S with growing pauses.

    Raises OSError when it is about this object, StoreError when it is about the storage as a whole,
    StoreDown when it did not answer in time.
    """
    started, wait_s, patience_s = time.monotonic(), FIRST_WAIT_S, _patience_s.get() or PATIENCE_S
    while True:
        try:
            return operation()
        except FlowprepError:
            raise
        except Exception as error:
            verdict = judge(error)
            if verdict == "bug":
                raise
            if verdict == "object":
                raise about_object(error, url) from error
            if verdict == "store":
                raise store_error(error, url) from error
            if time.monotonic() - started > patience_s:
                raise StoreDown(
                    f"{url}: no success for {patience_s:g} s: {reason(error)}",
                    "see that the storage can be reached from here, and run the same command again",
                ) from error
        time.sleep(wait_s * random.uniform(0.5, 1.5))
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)


def judge(error: BaseException) -> Verdict:
    """What to do about an exception of a file system of fsspec."""
    codes = {code for one in _chain(error) for code in _codes(one)}
    if codes & OF_THE_STORE or getattr(error, "errno", None) in NO_ROOM:
        return "store"
    if codes & PASSING:
        return "again"
    if isinstance(error, ABOUT_ONE):
        return "object"
    if isinstance(error, BUGS) and not codes:
        return "bug"
    statuses = {int(code) for code in codes if code.isdigit()}
    wrong = {s for s in statuses if 400 <= s < 500 or s == NOT_OFFERED} - PASSING_STATUS
    return "object" if wrong else "again"


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__
    return found


def _codes(error: BaseException) -> set[str]:
    """The names of its classes, the code a store gave, and the HTTP status."""
    response: Any = getattr(error, "response", None)
    status = getattr(error, "status", None) or getattr(error, "code", None)
    told: list[Any] = [status, getattr(response, "status_code", None)]
    told += [kind.__name__ for kind in type(error).__mro__]
    if isinstance(response, dict):
        told.append(response.get("Error", {}).get("Code"))
        told.append(response.get("ResponseMetadata", {}).get("HTTPStatusCode"))
    return {str(one) for one in told if one}


def about_object(error: Exception, url: str) -> OSError:
    """As the system would say it of a file of one's own."""
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "no such object", url)
    if isinstance(error, PermissionError):
        return PermissionError(errno.EACCES, f"access denied: {reason(error)}", url)
    return OSError(getattr(error, "errno", None) or errno.EIO, reason(error), url)


def store_error(error: Exception, url: str) -> StoreError:
    """What to say when no object of the storage will do any better."""
    codes = {code for one in _chain(error) for code in _codes(one)}
    if codes & NO_BUCKET:
        hint = "create the bucket, or check its name, region and endpoint"
    elif codes & FULL or getattr(error, "errno", None) in NO_ROOM:
        hint = "make room and run the same command again: it goes on where it stopped"
    else:
        hint = (
            "give credentials that are valid on this machine and on every worker's, and run the "
            "same command again: it goes on where it stopped"
        )
    return StoreError(f"{url}: {reason(error)}", hint)


def refused_write(error: OSError, url: str) -> FlowprepError:
    """A place that does not take what is written to it will take nothing else either."""
    return StoreError(
        f"{url} cannot be written: {error.strerror}",
        "get the rights to write there (put, list, delete), or choose another place",
    )


def reason(error: BaseException) -> str:
    """One line of what the store said."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."
