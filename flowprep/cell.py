"""A process that may die of what it is asked."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from flowprep.errors import Reason
from flowprep.processes import EXIT_DEVICE_LOST, EXIT_OUT_OF_MEMORY, START_S, how_it_ended


@dataclass(frozen=True)
class Death:
    """What a process died of while it worked on something."""

    reason: Reason
    message: str


MAX_TRIES = 3
"""How often something is tried when what ended its process need not be its fault."""
PERHAPS_OTHERS: dict[int, Death] = {
    -signal.SIGKILL: Death("out-of-memory", "the system killed its process, as without memory"),
    EXIT_DEVICE_LOST: Death("crashed", "the GPU failed under it"),
}
ANSWER_EVERY_S = 0.2
ENDING_S = 1.0


class Cell:
    """A process that answers one question after the other, and may die of any.

    `serve(*arguments, pipe)` runs in it. It is started when there is a question, and again after
    one has ended it; without a sign of life for `stall_s` it is killed.
    """

    def __init__(
        self, serve: Callable[..., None], arguments: tuple[Any, ...], stall_s: float
    ) -> None:
        self._serve, self._arguments, self._stall_s = serve, arguments, stall_s
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None

    def ask(self, question: object, is_answer: Callable[[Any], bool] = bool) -> Any:
        """The answer, or a Death.

        `is_answer` is called with each message, which is a sign of life, and again and again with
        None while there is none.
        """
        code = 0
        for _ in range(MAX_TRIES):
            pipe = self._started()
            try:
                pipe.send(question)
                return self._answer(pipe, is_answer)
            except (EOFError, OSError):
                code = self.end()
            if code not in PERHAPS_OTHERS:
                reason: Reason = "out-of-memory" if code == EXIT_OUT_OF_MEMORY else "crashed"
                return Death(reason, f"its process {how_it_ended(code)}")
        death = PERHAPS_OTHERS[code]
        return Death(death.reason, f"{death.message}, {MAX_TRIES} times")

    def _started(self) -> Connection:
        if self._pipe is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            arguments = (*self._arguments, theirs)
            self._process = context.Process(target=self._serve, args=arguments)
            self._process.start()
            theirs.close()
        return self._pipe

    def _answer(self, pipe: Connection, is_answer: Callable[[Any], bool]) -> Any:
        heard, patience_s = time.monotonic(), max(self._stall_s, START_S)
        while time.monotonic() - heard < patience_s:
            is_answer(None)
            if not pipe.poll(ANSWER_EVERY_S):
                continue
            message = pipe.recv()
            if is_answer(message):
                return message
            heard, patience_s = time.monotonic(), self._stall_s
        self.end()
        return Death("timeout", f"no progress for {patience_s:g} s")

    def end(self) -> int:
        """End the process if there is one; returns its exit code."""
        if self._process is None or self._pipe is None:
            return 0
        self._pipe.close()
        self._process.join(ENDING_S)
        self._process.kill()
        self._process.join()
        code = self._process.exitcode or 0
        self._process = self._pipe = None
        return code
