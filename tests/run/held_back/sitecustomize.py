"""Python runs this at the start of every process that has this folder on PYTHONPATH.

Decoding a video whose name begins with "hold" waits at its third frame until the file GATE is
there; with HOLD=probe, probing it does. Heartbeats come twice a second and are not waited for long.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

if os.environ.get("GATE"):
    from collections.abc import Iterator
    from typing import Any

    from flowprep.decode.pyav import PyAVDecoder
    from flowprep.run import beating, presence

    beating.RUN_EVERY_S = beating.WORKER_EVERY_S = 0.5
    beating.FIRST_S = 0.1
    presence.SPARE_S = 1.0
    plain_frames, plain_probe = PyAVDecoder.frames, PyAVDecoder.probe

    def hold(path: str) -> None:
        while Path(path).name.startswith("hold") and not Path(os.environ["GATE"]).exists():
            time.sleep(0.02)

    def frames(decoder: PyAVDecoder, path: str, *arguments: Any) -> Iterator[Any]:
        for number, frame in enumerate(plain_frames(decoder, path, *arguments)):
            if number == 2:
                hold(path)
            yield frame

    def probe(decoder: PyAVDecoder, path: str) -> Any:
        hold(path)
        return plain_probe(decoder, path)

    if os.environ.get("HOLD") == "probe":
        PyAVDecoder.probe = probe  # type: ignore[method-assign]
    else:
        PyAVDecoder.frames = frames  # type: ignore[method-assign]
