"""docs/hours.md says what was measured, and what follows from it."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[1] / "bench"))
import hours

RESULTS = Path(__file__).parents[1] / "bench" / "results"
Tables = dict[str, str]


@pytest.fixture
def results() -> dict[str, Any]:
    return hours.load(RESULTS)


def cells(table: str, *first: str) -> dict[str, str]:
    """Of the row that begins so, by the heads of the columns."""
    head, _, *lines = (
        [cell.strip() for cell in x.strip("|").split("|")] for x in table.split("\n")
    )
    (row,) = (line for line in lines if tuple(line[: len(first)]) == first)
    return dict(zip(head, row, strict=True))


def value(cell: str) -> float:
    units = {"M": 1e6, "G": 1e9}
    figure, _, unit = cell.replace(",", "").partition(" ")
    return float(figure) * units.get(unit, 1)


def test_the_page_is_what_the_measurements_give(results: dict[str, Any]) -> None:
    page = hours.PAGE.read_text("utf-8")
    assert page == hours.filled(page, hours.render(results))
    assert {mark[2] for mark in hours.MARKED.finditer(page)} == hours.render(results).keys()


def test_time_and_room_by_hand(results: dict[str, Any]) -> None:
    """Kinetics-400: 306,245 clips of 250 frames of 456x256."""
    measured = json.loads((RESULTS / "rates_cpu.json").read_text())["rows"]
    frames, pixels = 306_245 * 250, 456 * 256
    frame_s = 1 / measured["flows_per_s_all"] + measured["around_ms_per_frame"] / 1e3 / 2
    tables = hours.render(results)
    time = cells(tables["times"], "Kinetics-400", "`cpu`")
    expected = frames * pixels / (340 * 256) * frame_s / 3600
    assert value(time["machine-hours, as measured"]) == pytest.approx(expected, rel=0.005)
    assert value(time["core-hours"]) == pytest.approx(2 * expected, rel=0.005)
    room = cells(tables["storage"], "`x264` + `x264-flow`")
    assert value(room["Kinetics-400"]) == pytest.approx(frames * pixels * 0.1 / 1e12, rel=0.005)
    assert value(cells(tables["sizes"], "UCF101")["frames, at most"]) == 27 * 3600 * 25


def test_a_gpu_is_not_told_of_until_it_is_measured(results: dict[str, Any]) -> None:
    for name in ("rates_cuda", "rates_opencv-cuda"):
        results.pop(name, None)
    unknown = cells(hours.render(results)["times"], "UCF101", "`cuda`")
    assert [cell for cell in unknown.values() if any(c.isdigit() for c in cell)] == ["UCF101"]
    gpu = copy.deepcopy(results["rates_cpu"])
    gpu["rows"] |= {"flows_per_s_all": 1000.0, "around_ms_per_frame": 8.0, "cores": 16}
    known = cells(hours.render(results | {"rates_cuda": gpu})["times"], "UCF101", "`cuda`")
    expected = 27 * 3600 * 25 * 342 / 340 / 1000 / 3600  # the GPU is slower than 16 cores
    assert value(known["machine-hours, as measured"]) == pytest.approx(expected, rel=0.005)
    assert known["core-hours"] == ""


def test_other_measurements_give_another_page(results: dict[str, Any]) -> None:
    page = hours.PAGE.read_text("utf-8")
    results["rates_cpu"]["rows"]["flows_per_s_all"] *= 1.02
    assert page != hours.filled(page, hours.render(results))
