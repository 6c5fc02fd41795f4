"""A shard's tar, byte-deterministic: USTAR, fixed times and owners, samples in the order given."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from flowprep.storage import Place, sha256_file

BLOCK = 512


def tar_size_bytes(samples_end: int) -> int:
    """Bytes of a tar whose last sample ends there."""
    return -(-(samples_end + 2 * BLOCK) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


@dataclass(frozen=True)
class Placed:
    """Where a sample came to lie in the tar. Bytes."""

    offset: int
    size: int
    sha256: str
    members: dict[str, tuple[int, int]]  # suffix -> (offset of the data, size)


class ShardWriter:
    """Writes samples to a new tar at `path`, which is complete after `close`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("w+b")
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def add(self, key: str, members: dict[str, bytes | Path]) -> Placed:
        """Append one sample; `members` maps what follows `KEY.` to bytes or a file."""
        start = self._tar.offset
        places = {suffix: self._member(f"{key}.{suffix}", data) for suffix, data in members.items()}
        return self._placed(start, places)

    def copy(self, source: Place, placed: Placed) -> Placed:
        """Append a sample of another tar byte for byte; what the file lacks of it is zeros."""
        start = self._tar.offset
        with source.open("rb") as file:
            file.seek(placed.offset)
            data = file.read(placed.size).ljust(placed.size, b"\0")
        self._file.write(data)
        self._tar.offset += len(data)
        moved = start - placed.offset
        return self._placed(start, {s: (o + moved, n) for s, (o, n) in placed.members.items()})

    def _placed(self, start: int, members: dict[str, tuple[int, int]]) -> Placed:
        self._file.flush()
        end = self._tar.offset
        return Placed(start, end - start, sha256_file(self.path, start, end), members)

    def _member(self, name: str, data: bytes | Path) -> tuple[int, int]:
        info = tarfile.TarInfo(name)
        info.mode = 0o444
        info.uname = info.gname = "flowprep"
        info.size = len(data) if isinstance(data, bytes) else data.stat().st_size
        offset = self._tar.offset + BLOCK
        with io.BytesIO(data) if isinstance(data, bytes) else data.open("rb") as file:
            self._tar.addfile(info, file)
        return offset, info.size

    def close(self) -> None:
        self._tar.close()
        self._file.close()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()
