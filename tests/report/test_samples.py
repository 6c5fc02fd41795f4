"""Which frames of a clip are shown, and how many bytes they may take."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from flowprep.report.facts import histogram, nice_above
from flowprep.report.numbers import compact, percent, size
from flowprep.report.samples import (
    LEAST_PLAYED,
    MAX_SAMPLES,
    PAGE_BYTES,
    SIDE_PX,
    are_black,
    choose,
    fitting,
    make_sheet,
    overview_frames,
)


def test_pictures_of_noise_stay_below_the_size_of_a_page() -> None:
    """Nothing needs more bytes; the most samples that a page takes."""
    noise = np.random.default_rng(0).integers(0, 256, (8, SIDE_PX, SIDE_PX, 3), np.uint8)
    budget = PAGE_BYTES // MAX_SAMPLES // 2
    assert len(noise) == LEAST_PLAYED
    sheet = make_sheet(noise, noise[::-1], budget)
    assert len(sheet.jpeg) <= budget
    shape = cv2.imdecode(np.frombuffer(sheet.jpeg, np.uint8), cv2.IMREAD_COLOR).shape
    assert shape == (2 * SIDE_PX, 8 * SIDE_PX, 3)


def test_a_choice_is_repeatable_and_has_no_sample_twice() -> None:
    drawn = choose(1_000_000, 12, 3, [7, 5, 7])
    assert drawn == choose(1_000_000, 12, 3, [7, 5, 7])
    assert drawn[:2] == [7, 5]
    assert len(drawn) == len(set(drawn)) == 14
    assert sorted(choose(5, 12, 0, [1])) == [0, 1, 2, 3, 4]
    assert choose(0, 12, 0, []) == []


@pytest.mark.parametrize("n_flows", [1, 7, 8, 9, 1500])
def test_an_overview_goes_from_the_first_to_the_last(n_flows: int) -> None:
    frames = overview_frames(n_flows)
    assert (frames[0], frames[-1]) == (0, n_flows - 1)
    assert len(set(frames)) == len(frames) == min(8, n_flows)


def test_black_is_what_hardly_has_a_light_pixel() -> None:
    frames = np.zeros((3, 100, 100, 3), np.uint8)
    frames[0] += 31
    frames[1, :2, :50] = 255  # 1 %
    frames[2, :, :, 2] = 40
    assert are_black(frames) == [True, True, False]


def test_a_histogram_holds_every_value_once() -> None:
    values = np.array([0.0, 0.1, 5.0, *np.linspace(1, 2, 997), 1e9])
    found = histogram(values)
    assert sum(found.counts) == len(values)
    assert found.is_open
    assert found.edges[-1] < 10
    assert histogram(np.zeros(3)).counts[0] == 3


def test_numbers_for_people() -> None:
    assert [nice_above(v) for v in (0, 0.9, 1, 1.1, 7, 81)] == [1, 1, 1, 1.2, 8, 100]
    assert [size(n) for n in (0, 999, 999_600, 1.5e9)] == ["0 B", "999 B", "1 MB", "1.5 GB"]
    assert [compact(n) for n in (9999, 123_456, 999_600)] == ["9,999", "123k", "1M"]
    assert [percent(s) for s in (0, 1e-6, 0.5)] == ["0 %", "< 0.01 %", "50 %"]
    assert fitting(1080, 1920) == (135, 240)
    assert fitting(48, 64) == (48, 64)
