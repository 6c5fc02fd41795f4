"""An HTTP proxy in front of an S3 server that lets things go wrong, and counts.

    python tests/storage/proxy.py PORT SERVER_PORT

What goes wrong is told by JSON (see `Faults`) that is PUT to /-/faults; GET /-/log gives each
request since then, by kind, and /-/faults what went wrong how often. It runs in a process of its
own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qs, urlsplit

BIG = 1 << 62


@dataclass(frozen=True)
class Faults:
    """Shares are of the requests. Requests are counted from the time that these were told."""

    seed: int = 0
    error: float = 0.0  # answered 500 or 503, every other one after it was carried out
    slow: float = 0.0
    slow_s: float = 1.0  # at most
    drop_before: float = 0.0  # the connection ends when the head of the request is there
    drop_upload: float = 0.0  # in the middle of its body
    drop_answer: float = 0.0  # when it is carried out
    truncate: float = 0.0  # in the middle of the answer's body
    outage: tuple[int, int] = (BIG, BIG)  # from which request to which all are answered 503
    expired_from: int = BIG  # from this request on: 400 ExpiredToken
    room_bytes: int = BIG  # once so much was put: no more
    full: tuple[int, str] = (403, "QuotaExceeded")
    deny: str = ""  # methods that are answered 403 AccessDenied: "PUT DELETE"
    silent_from: int = BIG  # from this request on: no answer
    garble_puts: int = 0  # so many bodies get a wrong byte
    fail_parts: int = 0  # so many parts of multipart uploads are answered 500
    opaque_etags: bool = False  # as of an encrypted bucket


@dataclass
class Request:
    method: str
    target: str
    headers: dict[str, str]
    head: bytes
    body: bytes = b""

    @property
    def kind(self) -> str:
        query = parse_qs(urlsplit(self.target).query, keep_blank_values=True)
        if self.method == "GET" and ("list-type" in query or "uploads" in query):
            return "LIST"
        return "COPY" if "x-amz-copy-source" in self.headers else self.method

    @property
    def is_part(self) -> bool:
        return self.method == "PUT" and "partNumber=" in self.target


class Drop(Exception):
    """The connection ends here."""


@dataclass
class Proxy:
    server_port: int
    faults: Faults = field(default_factory=Faults)
    happened: Counter[str] = field(default_factory=Counter)
    log: list[str] = field(default_factory=list)
    n_seen: int = 0
    put_bytes: int = 0
    chance: random.Random = field(default_factory=random.Random)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(Drop, ConnectionError, asyncio.IncompleteReadError):
            while True:
                writer.write(await self._answer(reader, writer))
                await writer.drain()
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        request = await _read_head(reader)
        if request.target.startswith("/-/"):
            request.body = await _read_body(reader, request.headers)
            return self._told(request)
        self.log.append(f"{request.kind} {request.target}")
        self.n_seen += 1
        await self._trouble_on_the_way(request)
        if request.headers.get("expect"):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        n_bytes = int(request.headers.get("content-length", 0))
        if n_bytes and self._happens("drop_upload"):
            await reader.readexactly(n_bytes // 2)
            raise Drop
        request.body = await _read_body(reader, request.headers)
        if refusal := self._refused(request):
            return refusal
        fails = self._happens("error")
        if fails and self.chance.random() < 0.5:
            return self._failure(request)
        self._garble(request)
        answer = await _forwarded(request, self.server_port)
        return self._failure(request) if fails else self._way_back(request, answer, writer)

    def _told(self, request: Request) -> bytes:
        """What tests ask of the proxy itself."""
        if request.method == "PUT":
            asked = json.loads(request.body)
            self.faults = Faults(
                **{k: tuple(v) if isinstance(v, list) else v for k, v in asked.items()}
            )
            self.chance = random.Random(self.faults.seed)
            self.happened, self.log = Counter(), []
            self.n_seen = self.put_bytes = 0
        told = {"log": self.log, "faults": self.happened}
        return _made(200, json.dumps(told[request.target[3:]]).encode(), "application/json")

    def _happens(self, what: str) -> bool:
        happens = self.chance.random() < getattr(self.faults, what)
        self.happened[what] += happens
        return happens

    async def _trouble_on_the_way(self, request: Request) -> None:
        if self.n_seen >= self.faults.silent_from:
            self.happened["silent"] += 1
            await asyncio.sleep(3600)
        if self._happens("slow"):
            await asyncio.sleep(self.chance.uniform(0, self.faults.slow_s))
        if self._happens("drop_before"):
            raise Drop

    def _refused(self, request: Request) -> bytes:
        """An error instead of carrying it out; b"" when it is to be carried out."""
        faults = self.faults
        self.put_bytes += len(request.body) if request.method == "PUT" else 0
        if self.n_seen >= faults.expired_from:
            told = (400, "ExpiredToken", "The provided token has expired.")
        elif request.method in faults.deny.split():
            told = (403, "AccessDenied", "Access Denied")
        elif faults.outage[0] <= self.n_seen < faults.outage[1]:
            told = (503, "SlowDown", "Please reduce your request rate.")
        elif request.is_part and faults.fail_parts > 0:
            self.faults = replace(faults, fail_parts=faults.fail_parts - 1)
            told = (500, "InternalError", "We encountered an internal error.")
        elif request.method == "PUT" and self.put_bytes > faults.room_bytes:
            told = (*faults.full, "The bucket is full.")
        else:
            return b""
        self.happened[told[1]] += 1
        return _error(*told, request)

    def _failure(self, request: Request) -> bytes:
        status, code = self.chance.choice([(500, "InternalError"), (503, "ServiceUnavailable")])
        return _error(status, code, "Please try again.", request)

    def _garble(self, request: Request) -> None:
        if self.faults.garble_puts > 0 and request.method == "PUT" and request.body:
            self.faults = replace(self.faults, garble_puts=self.faults.garble_puts - 1)
            self.happened["garble_puts"] += 1
            place = self.chance.randrange(len(request.body))
            garbled = bytearray(request.body)
            garbled[place] ^= 1
            request.body = bytes(garbled)

    def _way_back(self, request: Request, answer: bytes, writer: asyncio.StreamWriter) -> bytes:
        if self._happens("drop_answer"):
            raise Drop
        if self.faults.opaque_etags and not request.is_part:
            answer = re.sub(rb'(?i)(\r\nETag: ")(\w+)', _reversed, answer, count=1)
        head, _, body = answer.partition(b"\r\n\r\n")
        if body and self._happens("truncate"):
            writer.write(head + b"\r\n\r\n" + body[: len(body) // 2])
            raise Drop
        return answer


def _reversed(found: re.Match[bytes]) -> bytes:
    """Another hash of the same length, the same for the same bytes."""
    return found[1] + found[2][::-1]


async def _read_head(reader: asyncio.StreamReader) -> Request:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    pairs = (line.partition(":") for line in lines)
    return Request(method, target, {name.lower(): value.strip() for name, _, value in pairs}, head)


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    """As it comes, chunks and all."""
    if "chunked" not in headers.get("transfer-encoding", ""):
        return await reader.readexactly(int(headers.get("content-length", 0)))
    body = b""
    while not body.endswith(b"0\r\n\r\n"):
        size = await reader.readline()
        body += size + await reader.readexactly(int(size, 16) + 2)
    return body


async def _forwarded(request: Request, port: int) -> bytes:
    """The server's whole answer, which ends with its connection."""
    lines = request.head.decode("latin-1").split("\r\n")[:-2]
    kept = [one for one in lines if not re.match(r"(?i)(connection|expect):", one)]
    head = "\r\n".join([*kept, "Connection: close", "", ""]).encode("latin-1")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head + request.body)
    await writer.drain()
    answer = await reader.read()
    writer.close()
    if not answer:
        raise Drop
    return re.sub(rb"(?i)\r\nConnection: close(?=\r\n)", b"", answer, count=1)


def _made(status: int, body: bytes, kind: str, n_bytes: int | None = None) -> bytes:
    length = len(body) if n_bytes is None else n_bytes
    head = f"HTTP/1.1 {status} Told\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    return head.encode() + body


def _error(status: int, code: str, message: str, request: Request) -> bytes:
    """As S3 tells it: by a text, which an answer to HEAD has not."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    data = body.encode()
    return _made(status, b"" if request.method == "HEAD" else data, "application/xml", len(data))


async def main(port: int, server_port: int) -> None:
    proxy = Proxy(server_port)
    limit = 1 << 20
    async with await asyncio.start_server(proxy.serve, "127.0.0.1", port, limit=limit) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
