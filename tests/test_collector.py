"""The collector of garbage is off inside, and afterwards as it was, whatever happens."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from flowprep.collector import collector_off


@pytest.fixture(params=[True, False])
def was_on(request: pytest.FixtureRequest) -> Iterator[bool]:
    (gc.enable if request.param else gc.disable)()
    yield request.param
    gc.enable()


@collector_off()
def divide(number: int) -> tuple[float, bool]:
    return 1 / number, gc.isenabled()


def test_it_is_off_inside_and_as_before_afterwards(was_on: bool) -> None:
    for number in (1, 2):
        assert divide(number) == (1 / number, False)
        assert gc.isenabled() == was_on


def test_an_error_leaves_it_as_it_was(was_on: bool) -> None:
    with pytest.raises(ZeroDivisionError):
        divide(0)
    assert gc.isenabled() == was_on
