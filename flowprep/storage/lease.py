"""A lock in object storage: an object that its holder writes anew, and that others watch."""

from __future__ import annotations

import getpass
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from flowprep.errors import FlowprepError
from flowprep.storage.remote import RemotePath
from flowprep.storage.trouble import briefly

RENEW_S = 15.0
DEAD_S = 60.0
"""A lease that was not renewed for so long is that of a run that has ended."""


@contextmanager
def leased(lock: RemotePath, what: str, command: str) -> Iterator[Callable[[], None]]:
    """Hold `lock`; what it gives raises FlowprepError when another run has taken it.

    One that is there is watched until it changes (FlowprepError: in use) or has not for DEAD_S. One
    of a process of this machine that has ended is taken at once. Clocks are not compared.
    """
    mine = _Lease(lock, what, command)
    mine.take()
    stop = threading.Event()
    renewing = threading.Thread(target=mine.renew_until, args=(stop,), daemon=True)
    renewing.start()
    try:
        yield mine.check
    finally:
        stop.set()
        renewing.join(2 * RENEW_S)
        mine.drop()


class _Lease:
    def __init__(self, lock: RemotePath, what: str, command: str) -> None:
        self._lock, self._what, self._command = lock, what, command
        self._owner, self._n_renewed, self._lost = uuid.uuid4().hex, 0, ""

    def _told(self) -> bytes:
        about = {
            "owner": self._owner,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "user": _user(),
            "command": self._command,
            "renewed": self._n_renewed,
        }
        return json.dumps(about).encode()

    def take(self) -> None:
        """Raises FlowprepError when the holder is alive."""
        if self._lock.create(self._told()) and self._is_mine():
            return
        first = self._read()
        watched_s = time.monotonic()
        while first and not _is_dead_here(first) and time.monotonic() - watched_s < DEAD_S:
            time.sleep(1)
            now = self._read()
            if now and now != first:
                self._refuse(now)
            first = now
        self._lock.write_bytes(self._told())
        time.sleep(1)  # of two that take it at once, the one that wrote last has it
        if not self._is_mine():
            self._refuse(self._read())

    def _refuse(self, holder: dict[str, Any]) -> None:
        who = f"{holder.get('user')} on {holder.get('host')}, process {holder.get('pid')}"
        raise FlowprepError(
            f"{self._what} is in use by another flowprep {holder.get('command')} ({who})",
            "wait for it, or stop it",
        )

    def _read(self) -> dict[str, Any]:
        """{} when nobody holds it."""
        try:
            told = json.loads(self._lock.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return told if isinstance(told, dict) else {}

    def _is_mine(self) -> bool:
        return self._read().get("owner") == self._owner

    def renew_until(self, stop: threading.Event) -> None:
        """Write it anew until the event; a store that is down for a while may come back."""
        while not stop.wait(RENEW_S):
            with suppress(OSError, FlowprepError):
                holder = self._read()
                if holder and holder.get("owner") != self._owner:
                    self._lost = f"{holder.get('host')}, process {holder.get('pid')}"
                    return
                self._n_renewed += 1
                self._lock.write_bytes(self._told())

    def check(self) -> None:
        """Raise FlowprepError when another run has taken it over."""
        if self._lost:
            raise FlowprepError(
                f"{self._what} was taken over by another run ({self._lost}), as this one had not "
                f"been heard of for {DEAD_S:g} s",
                "let that run end, or stop it and run the same command again",
            )

    def drop(self) -> None:
        with suppress(OSError, FlowprepError), briefly():
            if self._is_mine():
                self._lock.unlink(missing_ok=True)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"


def _is_dead_here(holder: dict[str, Any]) -> bool:
    """Whether it names a process of this machine that is gone."""
    if holder.get("host") != socket.gethostname() or not isinstance(holder.get("pid"), int):
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return holder["pid"] == os.getpid()  # of an earlier process of that number
