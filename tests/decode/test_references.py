"""What containers can name outside of themselves is left alone, and the video is read all the same.

Each address is put where FFmpeg, or another player, would look for it; a server on this machine
records who asks.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import pytest

from flowprep.decode.pyav import PyAVDecoder
from flowprep.errors import ClipError

MakeVideo = Callable[..., Path]
N_FRAMES = 10


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[tuple[Path, threading.Event]]:
    """A pipe, and whether anybody opened it to read."""
    path, opened = tmp_path / "secret.mp4", threading.Event()
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: (open(path, "wb").close(), opened.set()))
    writer.start()
    yield path, opened
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    writer.join(5)


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + name + content


def outside(kind: bytes, target: str) -> bytes:
    """A data reference to another file, in the form that FFmpeg reads."""
    if kind == b"url ":
        return box(b"dref", struct.pack(">II", 0, 1) + box(b"url ", bytes(4) + target.encode()))
    name = os.path.basename(target).encode()[:63]
    alias = bytes(10) + b"\x04disk".ljust(28, b"\0") + bytes(12)
    alias += bytes([len(name)]) + name.ljust(63, b"\0") + bytes(16)
    alias += struct.pack(">hh", 0, 0) + bytes(16)
    for number, text in ((2, target.replace("/", ":")), (18, target), (0, os.path.dirname(target))):
        data = text.encode()
        alias += struct.pack(">hH", number, len(data)) + data + bytes(len(data) % 2)
    alias += struct.pack(">hH", -1, 0)
    return box(b"dref", struct.pack(">II", 0, 1) + box(b"alis", bytes(4) + alias))


def with_reference(path: Path, kind: bytes, target: str) -> None:
    """The movie with its data reference replaced; the boxes around it grow."""
    data = path.read_bytes()
    at = data.index(b"dref") - 4
    old = int.from_bytes(data[at : at + 4], "big")
    new = outside(kind, target)
    grown = bytearray(data[:at] + new + data[at + old :])
    for name in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        size_at = data.index(name) - 4
        size = int.from_bytes(grown[size_at : size_at + 4], "big") + len(new) - old
        grown[size_at : size_at + 4] = size.to_bytes(4, "big")
    path.write_bytes(grown)


@pytest.mark.parametrize("kind", [b"url ", b"alis"])
def test_data_references_are_not_followed(
    encode: MakeVideo,
    decoder: PyAVDecoder,
    server: tuple[str, list[str]],
    trap: tuple[Path, threading.Event],
    kind: bytes,
) -> None:
    (address, requests), (secret, opened) = server, trap
    for target in (address, str(secret), f"file://{secret}"):
        path = encode("a.mov", n=N_FRAMES)
        with_reference(path, kind, target)
        if kind == b"url ":  # FFmpeg takes the file's own bytes all the same
            assert decoder.probe(str(path)).n_frames == N_FRAMES
            continue
        with pytest.raises(ClipError, match="0 of the 10 frames"):
            decoder.probe(str(path))
    assert requests == []
    assert not opened.wait(0.2)


def test_an_alias_is_followed_where_nothing_guards(
    encode: MakeVideo, trap: tuple[Path, threading.Event]
) -> None:
    """Otherwise the test above would prove nothing."""
    secret, opened = trap
    path = encode("a.mov", n=N_FRAMES)
    with_reference(path, b"alis", str(secret))
    options = {"enable_drefs": "1", "use_absolute_path": "1"}
    with av.open(str(path), container_options=options) as container:
        container.demux(video=0)
    assert opened.wait(5)


def test_a_movie_that_only_refers_to_another_is_no_movie(
    tmp_path: Path, decoder: PyAVDecoder, server: tuple[str, list[str]]
) -> None:
    address, requests = server
    text = address.encode() + b"\0"
    rdrf = box(b"rdrf", bytes(4) + b"url " + struct.pack(">I", len(text)) + text)
    path = tmp_path / "a.mov"
    path.write_bytes(box(b"moov", box(b"rmra", box(b"rmda", rdrf))))
    with pytest.raises(ClipError):
        decoder.probe(str(path))
    assert requests == []


def test_commands_of_a_stream_are_not_obeyed(
    encode: MakeVideo, decoder: PyAVDecoder, server: tuple[str, list[str]]
) -> None:
    """ASF can tell a player to go to an address at a given time."""
    address, requests = server
    path = encode("a.wmv", "wmv2", n=N_FRAMES)
    data = bytearray(path.read_bytes())
    name, text = "URL".encode("utf-16-le"), address.encode("utf-16-le")
    body = bytes.fromhex("e3cb1a4b0b10d011a39b00a0c90348f6") + struct.pack("<HH", 1, 1)
    body += struct.pack("<H", 3) + name + struct.pack("<IHH", 0, 0, len(address)) + text
    script = bytes.fromhex("301afb1e620bd011a39b00a0c90348f6")
    script += struct.pack("<Q", 24 + len(body)) + body
    size, count = struct.unpack_from("<QI", data, 16)
    struct.pack_into("<QI", data, 16, size + len(script), count + 1)
    data[size:size] = script
    path.write_bytes(data)
    assert decoder.probe(str(path)).n_frames == N_FRAMES
    assert requests == []


def test_attachments_are_not_unpacked(
    encode: MakeVideo, decoder: PyAVDecoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source, path = encode("a.mkv", n=N_FRAMES), tmp_path / "b.mkv"
    with av.open(str(source)) as read, av.open(str(path), "w") as write:
        stream = write.add_stream_from_template(read.streams.video[0])
        write.add_attachment("../stray.ttf", "font/ttf", b"no font")
        for packet in read.demux(video=0):
            if packet.size:
                packet.stream = stream
                write.mux(packet)
    assert b"../stray.ttf" in path.read_bytes()
    before = sorted(tmp_path.parent.rglob("*"))
    assert decoder.probe(str(path)).n_frames == N_FRAMES
    assert sorted(tmp_path.parent.rglob("*")) == before


def _ogg_page(serial: int, flags: int, number: int, body: bytes) -> bytes:
    head = struct.pack("<4sBBqIII", b"OggS", 0, flags, 0, serial, number, 0)
    page = bytearray(head + bytes([1, len(body)]) + body)
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x04C11DB7 if crc & 0x80000000 else 0)
        crc &= 0xFFFFFFFF
    page[22:26] = crc.to_bytes(4, "little")
    return bytes(page)


def test_a_skeleton_that_names_addresses_is_passed_over(
    encode: MakeVideo, decoder: PyAVDecoder, server: tuple[str, list[str]]
) -> None:
    address, requests = server
    path = encode("a.ogg", "libvpx", n=N_FRAMES)
    head = b"fishead\0" + struct.pack("<HHqqqq", 3, 0, 0, 1000, 0, 1000) + bytes(20)
    fields = f"Content-type: video/vp8\r\nLocation: {address}\r\nName: {address}\r\n".encode()
    bone = b"fisbone\0" + struct.pack("<IIIqqqIB3x", 44, 1, 1, 25, 1, 0, 0, 0) + fields
    data = path.read_bytes()
    second = data.index(b"OggS", 4)
    pages = _ogg_page(77, 2, 0, head), data[:second], _ogg_page(77, 0, 1, bone)
    path.write_bytes(b"".join(pages) + data[second:])
    assert decoder.probe(str(path)).n_frames == N_FRAMES
    assert requests == []
