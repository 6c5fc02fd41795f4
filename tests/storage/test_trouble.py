"""What is tried again, and what is said when that is no use."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import pytest

from flowprep.errors import FlowprepError, StoreDown, StoreError
from flowprep.storage import RemotePath, lease, place_of, sending, trouble

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


class Coded(Exception):
    """As botocore's ClientError."""

    def __init__(self, code: str, status: int) -> None:
        super().__init__(code)
        told = {"HTTPStatusCode": status}
        self.response = {"Error": {"Code": code}, "ResponseMetadata": told}


def cut_off() -> Exception:
    """As aiohttp tells of an answer that ends before its end."""
    from aiohttp.client_exceptions import ClientPayloadError
    from aiohttp.http_exceptions import ContentLengthError

    error = ClientPayloadError("Response payload is not completed")
    error.__cause__ = ContentLengthError("received 768 of 1537 bytes")
    return error


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nobody waits: how long they would have."""
    clock, slept = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(trouble.time, "sleep", sleep)
    monkeypatch.setattr(trouble.time, "monotonic", lambda: clock[0])
    return slept


def failing(*errors: BaseException) -> Callable[[], str]:
    left = list(errors)

    def operation() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return operation


def test_the_last_words_of_a_run_are_not_waited_for(waits: list[float]) -> None:
    with pytest.raises(StoreDown, match="no success for 10 s"), trouble.briefly():
        trouble.attempt(failing(*[Coded("SlowDown", 503)] * 1000), "s3://b/k")
    assert sum(waits) < 30
    assert trouble.attempt(failing(*[Coded("SlowDown", 503)] * 9), "s3://b/k") == "done"


@pytest.mark.parametrize(
    "error",
    [
        Coded("InternalError", 500),
        Coded("SlowDown", 503),
        Coded("RequestTimeout", 408),
        Coded("TooManyRequests", 429),
        Coded("BadDigest", 400),
        Coded("ThrottlingException", 400),
        OSError(errno.EIO, "broken pipe"),
        ConnectionResetError("reset"),
        TimeoutError("slow"),
        cut_off(),
    ],
)
def test_what_may_pass_is_tried_again(error: Exception, waits: list[float]) -> None:
    assert trouble.attempt(failing(error, error, error), "s3://b/k") == "done"
    assert len(waits) == 3
    assert waits[0] < waits[2] < 2 * trouble.LONGEST_WAIT_S


def test_it_ends_with_the_url_and_the_reason(waits: list[float]) -> None:
    with pytest.raises(StoreDown, match=r"s3://b/k: no success for 180 s: SlowDown"):
        trouble.attempt(failing(*[Coded("SlowDown", 503)] * 1000), "s3://b/k")
    assert trouble.PATIENCE_S < sum(waits) < trouble.PATIENCE_S + 2 * trouble.LONGEST_WAIT_S


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (Coded("ExpiredToken", 400), "credentials"),
        (Coded("InvalidAccessKeyId", 403), "credentials"),
        (Coded("NoSuchBucket", 404), "bucket"),
        (Coded("QuotaExceeded", 403), "room"),
        (Coded("XMinioAdminBucketQuotaExceeded", 400), "room"),
        (OSError(errno.ENOSPC, "no space left"), "room"),
    ],
)
def test_trouble_of_the_store_is_not_tried_again(
    error: Exception, hint: str, waits: list[float]
) -> None:
    with pytest.raises(StoreError, match=r"s3://b/k") as found:
        trouble.attempt(failing(error), "s3://b/k")
    assert (hint in found.value.hint, waits) == (True, [])


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FileNotFoundError("k"), FileNotFoundError),
        (PermissionError("Access Denied"), PermissionError),
        (Coded("NoSuchKey", 404), OSError),
        (Coded("NotImplemented", 501), OSError),
    ],
)
def test_trouble_with_one_object_is_told_as_that(
    error: Exception, kind: type[OSError], waits: list[float]
) -> None:
    with pytest.raises(kind):
        trouble.attempt(failing(error), "s3://b/k")
    assert waits == []


class Garbling:
    """A store in which the first few objects arrive with a byte changed. It tells their hash, as S3
    does, or another ETag, as some do.
    """

    def __init__(self, n_garbled: int, tells_hash: bool) -> None:
        self.left, self.tells_hash, self.held = n_garbled, tells_hash, b""

    def _about(self) -> dict[str, object]:
        etag = hashlib.md5(self.held).hexdigest() if self.tells_hash else "opaque"
        return {"ETag": f'"{etag}"', "size": len(self.held), "LastModified": NOW, "type": "file"}

    def pipe_file(self, key: str, data: bytes) -> dict[str, object]:
        self.held = bytes([data[0] ^ 1]) + data[1:] if self.left else data
        self.left = max(0, self.left - 1)
        return self._about()

    def info(self, key: str) -> dict[str, object]:
        return self._about()

    def cat_file(self, key: str, start: int, end: int) -> bytes:
        return self.held[start:end]


@pytest.mark.parametrize("tells_hash", [True, False])
def test_a_byte_that_changes_on_the_way_is_sent_again(tells_hash: bool, waits: list[float]) -> None:
    store, data = Garbling(2, tells_hash), b"what a shard is made of"
    trouble.attempt(lambda: sending.put(store, "bucket/key", data), "s3://bucket/key")
    assert (store.held, len(waits)) == (data, 2)


def test_a_url_is_one_place() -> None:
    assert place_of("s3://bucket/a/b/", "--out") == RemotePath("s3://bucket/a/b")
    assert place_of("file:///tmp/x", "--out") == Path("/tmp/x")
    for wrong in ("", "s3://", "zip://a::s3://b/c"):
        with pytest.raises(FlowprepError):
            place_of(wrong, "--out")


def test_a_lease_that_is_renewed_is_in_use_and_a_silent_one_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lock = RemotePath("memory://lease/lock")
    other = {"owner": "other", "host": "elsewhere", "pid": 1, "user": "u", "command": "extract"}
    lock.write_bytes(json.dumps(other | {"renewed": 0}).encode())
    clock, renews = [0.0], [True]

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        if renews[0]:
            lock.write_bytes(json.dumps(other | {"renewed": clock[0]}).encode())

    monkeypatch.setattr(lease.time, "sleep", sleep)
    monkeypatch.setattr(lease.time, "monotonic", lambda: clock[0])
    with (
        pytest.raises(FlowprepError, match=r"in use by another flowprep extract \(u on elsewhere"),
        lease.leased(lock, "memory://lease", "extract"),
    ):
        pass
    renews[0] = False
    with lease.leased(lock, "memory://lease", "extract") as check:
        check()
        assert clock[0] > lease.DEAD_S
        assert json.loads(lock.read_bytes())["host"] != "elsewhere"
    assert not lock.is_file()
