"""Python runs this at the start of every process that has this folder on PYTHONPATH.

Decoding a video whose name begins with the name of a function here does what that says, at its
third frame; with POISON=probe, probing it does.
"""

from __future__ import annotations

import os
from pathlib import Path

if os.environ.get("POISON"):
    import ctypes
    import signal
    import time
    from collections.abc import Iterator
    from typing import Any

    from flowprep.decode.pyav import PyAVDecoder

    def segfault(_: str) -> None:
        ctypes.string_at(0)

    def abort(_: str) -> None:
        os.abort()

    def leave(_: str) -> None:
        os._exit(3)

    def hang(_: str) -> None:
        time.sleep(1e6)

    def freeze(_: str) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def hog(_: str) -> None:
        import numpy as np

        held = [np.ones(32 << 20, np.uint8) for _ in range(3200)]  # 100 GB
        raise AssertionError(f"nobody minded {len(held)} blocks")

    def refused(_: str) -> None:
        import numpy as np

        np.ones(1 << 60, np.uint8)  # raises MemoryError at once

    def killed(_: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def once(path: str) -> None:
        """Killed by somebody, and never again."""
        try:
            os.close(os.open(f"{path}.flag", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    POISONS = {
        p.__name__: p for p in (segfault, abort, leave, hang, freeze, hog, refused, killed, once)
    }
    plain_frames, plain_probe = PyAVDecoder.frames, PyAVDecoder.probe

    def poison(path: str) -> None:
        POISONS.get(Path(path).name.split("-")[0], lambda _: None)(path)

    def frames(decoder: PyAVDecoder, path: str, *arguments: Any) -> Iterator[Any]:
        for number, frame in enumerate(plain_frames(decoder, path, *arguments)):
            if number == 2:
                poison(path)
            yield frame

    def probe(decoder: PyAVDecoder, path: str) -> Any:
        poison(path)
        return plain_probe(decoder, path)

    if os.environ["POISON"] == "probe":
        PyAVDecoder.probe = probe  # type: ignore[method-assign]
    else:
        PyAVDecoder.frames = frames  # type: ignore[method-assign]
