"""What tests of training share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from train.common import Place


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Small networks on a busy machine wait for threads more than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def here() -> Place:
    """One process on the CPU, in float32."""
    return Place(0, 1, torch.device("cpu"), False)
