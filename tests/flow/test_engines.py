"""The contract suite over every engine in the registry; a new engine needs no new test file."""

from __future__ import annotations

import importlib.util
import os
import sys
from functools import cache, partial
from pathlib import Path
from types import ModuleType

import pytest

from flowprep.flow.base import EngineStatus, GivesCodes, engine_status, get_engine, registry


def load_contract() -> ModuleType:
    """tests/flow/contract.py: with --import-mode=importlib a test cannot import its neighbour."""
    path = Path(__file__).with_name("contract.py")
    spec = importlib.util.spec_from_file_location("flow_contract", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


contract = load_contract()
ALL_CHECKS = contract.CHECKS | contract.TVL1_CHECKS | contract.CODES_CHECKS

NOT_TVL1 = {"constant"}
INTERIOR_EPE_PX = {"opencv-cpu": 0.08}  # its stopping rule ends sooner: 0.055 px is its best
CUDA_ENGINES = {"cuda", "opencv-cuda"}

live_status = cache(engine_status)


def skip_unless_live(status: EngineStatus) -> None:
    if status.available:
        return
    if status.name in CUDA_ENGINES and os.environ.get("FLOWPREP_FAIL_WITHOUT_CUDA") == "1":
        pytest.fail(f"{status.name} is not live: {status.detail}")
    pytest.skip(f"{status.name} is not live here: {status.detail}")


def engine_checks() -> list[object]:
    return [
        pytest.param(engine, check, id=f"{engine}-{check}")
        for engine in sorted(registry())
        for check in (contract.CHECKS if engine in NOT_TVL1 else ALL_CHECKS)
    ]


@pytest.mark.parametrize(("engine", "check"), engine_checks())
def test_engine_keeps_the_contract(engine: str, check: str) -> None:
    skip_unless_live(live_status(engine))
    case = contract.Case(
        make=partial(get_engine, engine),
        is_tvl1=engine not in NOT_TVL1,
        interior_epe_px=INTERIOR_EPE_PX.get(engine, 0.03),
    )
    if check in contract.CODES_CHECKS and not isinstance(case.make(), GivesCodes):
        pytest.skip(f"{engine} leaves quantising to the host")
    ALL_CHECKS[check](case)


def test_a_missing_cuda_engine_fails_where_one_is_demanded(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = EngineStatus("opencv-cuda", "", False, "no CUDA device", "")
    monkeypatch.delenv("FLOWPREP_FAIL_WITHOUT_CUDA", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no CUDA device"):
        skip_unless_live(gone)
    monkeypatch.setenv("FLOWPREP_FAIL_WITHOUT_CUDA", "1")
    with pytest.raises(pytest.fail.Exception, match="no CUDA device"):
        skip_unless_live(gone)
