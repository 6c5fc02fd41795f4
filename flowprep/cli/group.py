"""What every command shares: errors as one clear message, exit codes, signals."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import click

from flowprep.errors import FlowprepError

EXIT_FINDINGS, EXIT_USER, EXIT_FAILURES, EXIT_INTERRUPTED = 1, 2, 3, 130


class Group(click.Group):
    """Turns errors into one clear message and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return self._invoke(ctx)
        finally:
            if "flowprep.processes" in sys.modules:
                sys.modules["flowprep.processes"].kill_children()

    def _invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FlowprepError as error:
            if ctx.params.get("debug"):
                raise
            complain(error.message, error.hint)
            sys.exit(error.exit_code)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except OSError as error:
            if ctx.params.get("debug") or error.errno == errno.EPIPE:
                raise
            name = f"{error.filename}: " if error.filename else ""
            complain(f"{name}{error.strerror or error}", "mend it and run the same command again")
            sys.exit(EXIT_USER)
        except KeyboardInterrupt:
            on_signals(signal.SIG_IGN)  # Python would let another one kill it while it ends
            complain("interrupted", "run the same command again: it goes on where it stopped")
            sys.exit(EXIT_INTERRUPTED)
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            complain(
                f"{type(error).__name__}: {error}",
                "flowprep did not expect this: run it again as flowprep --debug ..., and report it",
            )
            sys.exit(EXIT_USER)


def complain(message: str, hint: str) -> None:
    click.echo(f"Error: {message}", err=True)
    if hint:
        click.echo(f"Hint: {hint}", err=True)


def is_debug() -> bool:
    return bool(click.get_current_context().find_root().params["debug"])


def interrupt(*_: Any) -> None:
    """The first signal ends the run in order; another one ends it at once."""
    on_signals(_leave)
    raise KeyboardInterrupt


def on_signals(handler: Callable[..., None] | signal.Handlers) -> None:
    """But not those that this process was started to ignore, as in a shell's background job."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _leave(*_: Any) -> None:
    os._exit(EXIT_INTERRUPTED)
