"""The geometry of the plots: means, bands, samples."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mint_stream.output.accuracy import sign_test
from mint_stream.reports.plots import (
    Series,
    find_bands,
    label_chart,
    rolling_chart,
    rolling_mean,
    usage_grid,
)
from mint_stream.reports.samples import choose

values = st.lists(st.one_of(st.floats(0, 1), st.just(float("nan"))), min_size=1, max_size=60)


@given(values, st.integers(0, 12).map(lambda half: 2 * half + 1))
def test_the_rolling_mean_is_the_mean_of_the_known_values_around(
    numbers: list[float], window: int
) -> None:
    array = np.array(numbers)
    found = rolling_mean(array, window)
    for k in range(len(array)):
        around = array[max(0, k - window // 2) : k + window // 2 + 1]
        known = around[~np.isnan(around)]
        if len(known):
            assert found[k] == pytest.approx(known.mean(), abs=1e-9)
        else:
            assert np.isnan(found[k])


def points(text: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in text.split())]


def test_lines_stay_in_the_plot_and_end_at_every_band() -> None:
    domains = ["day"] * 40 + ["night"] * 60
    bands = find_bands(domains)
    assert [(b.name, b.start, b.stop) for b in bands] == [("day", 0, 40), ("night", 40, 100)]
    known = np.concatenate([np.ones(40), np.zeros(60)])
    series = Series("frozen", 0, np.arange(100), known)
    (line,) = rolling_chart("Accuracy", [series], frames=100, bands=bands).lines
    day, night = (points(text) for text in line.points)
    assert {y for _, y in day} == {0.0}  # all right, on top: no band looks into the other
    assert {y for _, y in night} == {100.0}
    assert max(x for x, _ in day) <= 40 <= min(x for x, _ in night)


def test_a_long_stream_does_not_make_a_long_file() -> None:
    series = Series("paper", 1, np.arange(100_000), np.zeros(100_000))
    (line,) = rolling_chart("Confidence", [series], frames=100_000).lines
    assert len(points(line.points[0])) <= 400
    assert find_bands([str(k // 2) for k in range(100)]) == ()


@given(st.lists(st.sampled_from("abcdefghijk"), min_size=1, max_size=200))
def test_label_areas_fill_the_plot(labels: list[str]) -> None:
    areas = [points(area.points[0]) for area in label_chart(labels).areas]
    steps = len(areas[0]) // 2
    for step in range(steps):
        for below, above in itertools.pairwise(areas):
            # What one area ends with on top, the next begins with.
            assert below[step] == above[2 * steps - 1 - step]
        assert areas[0][2 * steps - 1 - step][1] == 100
        assert areas[-1][step][1] == pytest.approx(0, abs=1e-6)


def test_the_grid_has_a_cell_for_every_entry() -> None:
    grid = usage_grid("shared", {0: 3, 5: 1, 39: 0})
    assert (grid.entries, grid.used, grid.retrievals, grid.rows) == (40, 2, 4, 2)
    assert [cell.usage for cell in grid.cells if cell.usage] == [3, 1]
    assert grid.cells[0].strength == 1
    assert usage_grid("unused", {0: 0, 1: 0}).top_share == 0


@given(st.lists(st.sampled_from("fb."), min_size=1, max_size=40), st.integers(1, 8))
def test_samples_are_distinct_in_order_and_show_both_kinds_of_change(
    kinds: list[str], count: int
) -> None:
    fixed = np.array([kind == "f" for kind in kinds])
    broken = np.array([kind == "b" for kind in kinds])
    chosen = choose(np.arange(len(kinds)), fixed, broken, count)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, len(kinds))
    if count >= 4:
        assert sum(fixed[chosen]) >= min(2, fixed.sum())
        assert sum(broken[chosen]) >= min(2, broken.sum())


def test_the_sign_test() -> None:
    assert sign_test(0, 0) == 1
    assert sign_test(5, 5) == 1
    assert sign_test(6, 0) == pytest.approx(2 / 64)
    assert sign_test(3, 9) == sign_test(9, 3) == pytest.approx(0.145996, abs=1e-6)
    # The exact value and its normal limit agree where they meet.
    assert sign_test(530, 469) == pytest.approx(sign_test(530, 470), rel=0.1)
