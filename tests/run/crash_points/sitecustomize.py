"""Python runs this at the start of every process that has this folder on PYTHONPATH.

It kills the process (SIGKILL) at one point of what flowprep does to the files of a dataset, or
lists these points. `CRASH_OUT` is the dataset, `CRASH_LOG` gets a line for each point that is
passed, `CRASH_AT` is the line to die at, `CRASH_FLAG` a file that makes it happen only once, and
`CRASH_DRIVER` says that the process which started a worker dies with it.

A point is `role|action|phase|path`: action = what is done to the file; phase = before, torn (half
of the bytes are written) or after; path below the dataset, random names left out.
"""

from __future__ import annotations

import os

if os.environ.get("CRASH_OUT"):
    import re
    import shutil
    import signal
    import sys
    import tarfile
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    OUT = os.environ["CRASH_OUT"]
    LOG, AT, FLAG = (os.environ.get(f"CRASH_{name}", "") for name in ("LOG", "AT", "FLAG"))
    RANDOM = re.compile(r"\.[0-9a-f]{32}")

    def _role() -> str:
        words = " ".join(sys.orig_argv)
        return "worker" if "spawn_main" in words or "default_worker" in words else "driver"

    def _reach(action: str, phase: str, path: str) -> None:
        if path != OUT and not path.startswith(OUT + "/"):
            return
        name = RANDOM.sub("", os.path.relpath(path, OUT))
        point = f"{_role()}|{action}|{phase}|{name}"
        if LOG:
            handle = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(handle, f"{point}\n".encode())
            os.close(handle)
        if point == AT:
            try:
                os.close(os.open(FLAG, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
            if os.environ.get("CRASH_DRIVER"):
                os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)

    def _watch(owner: Any, name: str, path_of: Callable[..., Any]) -> None:
        plain = getattr(owner, name)

        def watched(*args: Any, **options: Any) -> Any:
            path = os.fspath(path_of(*args))
            _reach(name, "before", path)
            result = plain(*args, **options)
            _reach(name, "after", path)
            return result

        setattr(owner, name, watched)

    def _write_bytes(path: Path, data: bytes) -> int:
        _reach("write_bytes", "before", str(path))
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
            file.flush()
            _reach("write_bytes", "torn", str(path))
            file.write(data[len(data) // 2 :])
        _reach("write_bytes", "after", str(path))
        return len(data)

    def _addfile(tar: tarfile.TarFile, info: tarfile.TarInfo, file: Any = None) -> None:
        out, path = tar.fileobj, f"{os.fspath(tar.name)}:{info.name}"  # type: ignore[arg-type]
        assert out is not None
        _reach("addfile", "before", path)
        start = out.tell()
        out.write(info.tobuf(tar.format) + (file.read(info.size // 2) if file else b""))
        out.flush()  # type: ignore[attr-defined]
        _reach("addfile", "torn", path)
        out.seek(start)
        if file:
            file.seek(0)
        plain_addfile(tar, info, file)
        out.flush()  # type: ignore[attr-defined]
        _reach("addfile", "after", path)

    plain_addfile = tarfile.TarFile.addfile
    tarfile.TarFile.addfile = _addfile  # type: ignore[method-assign, assignment]
    Path.write_bytes = _write_bytes  # type: ignore[method-assign, assignment]
    _watch(tarfile.TarFile, "close", lambda tar: tar.name or "")
    _watch(os, "fsync", lambda handle: os.readlink(f"/proc/self/fd/{handle}"))
    _watch(Path, "replace", lambda _, target: target)
    _watch(Path, "unlink", lambda path, *_: path)
    _watch(Path, "mkdir", lambda path, *_: path)
    _watch(Path, "rmdir", lambda path, *_: path)
    _watch(Path, "touch", lambda path, *_: path)
    _watch(shutil, "rmtree", lambda path, *_: path)
