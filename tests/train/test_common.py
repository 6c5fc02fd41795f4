"""How a command ends, and the settings that come with the code."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from flowprep.errors import FlowprepError
from train.common import Interrupt, run_main
from train.config import DistillConfig, TeacherConfig, load_config

PRESETS = sorted((Path(__file__).parents[2] / "pipelines" / "train").glob("*.toml"))


def raising(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("main", "code", "told"),
    [
        (raising(FlowprepError("no --shards", "give them")), 2, "no --shards\nHint: give them"),
        (raising(OSError(28, "No space left on device", "x.pt")), 2, "x.pt: No space left"),
        (raising(KeyboardInterrupt()), 130, "interrupted"),
        (lambda: "interrupted", 130, "run the same command again"),
    ],
)
def test_errors_become_one_message_and_an_exit_code(
    main: Callable, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run_main(main)
    assert caught.value.code == code
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert told in error


def test_what_ends_well_exits_with_nothing() -> None:
    run_main(lambda: "done")
    run_main(lambda: None)


def test_what_nobody_expected_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_main(raising(ZeroDivisionError()))


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_presets_are_settings(preset: Path) -> None:
    for kind in (TeacherConfig, DistillConfig):
        config = load_config(kind, preset)
        assert config != kind()
    assert PRESETS


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_only_while_someone_looks(number: int) -> None:
    """Between a teacher and its student Ctrl-C ends the program, not a note that nobody reads."""
    before = signal.getsignal(number)
    with Interrupt() as interrupt:
        assert not interrupt.asked
        signal.raise_signal(number)
        assert interrupt.asked
        assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)
    assert signal.getsignal(number) is before
