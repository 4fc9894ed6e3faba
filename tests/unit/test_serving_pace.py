"""When batches close: at once while the model is free, with it while it is not."""

from __future__ import annotations

import pytest

from mint_stream.serving.pace import Pace


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    pace = Pace(clock)
    for images, seconds in ((1, 0.010), (16, 0.080)):
        pace.started(images)
        clock.now += seconds
        pace.finished(images)
    return pace


def test_a_free_model_waits_for_nobody(pace: Pace) -> None:
    assert Pace().wait_s() == 0.0
    assert pace.wait_s() == 0.0


def test_a_busy_model_s_next_batch_fills_until_it_is_free(pace: Pace, clock: Clock) -> None:
    pace.started(16)
    assert pace.wait_s() == pytest.approx(0.080)
    clock.now += 0.050
    assert pace.wait_s() == pytest.approx(0.030)


def test_a_batch_that_runs_over_does_not_make_the_next_ones_tiny(pace: Pace, clock: Clock) -> None:
    pace.started(16)
    clock.now += 5.0
    assert pace.wait_s() == pytest.approx(0.020)


def test_sizes_that_were_never_seen_are_judged_by_the_nearest(pace: Pace) -> None:
    assert pace.expected_s(32) == pytest.approx(0.160)
    assert pace.expected_s(15) == pytest.approx(0.080)
    assert pace.expected_s(2) == pytest.approx(0.020)


def test_the_wait_follows_what_batches_take_and_is_bounded(clock: Clock) -> None:
    pace = Pace(clock)
    for _ in range(30):
        pace.started(4)
        clock.now += 90.0
        pace.finished(4)
    assert pace.expected_s(4) == pytest.approx(90.0)
    pace.started(4)
    assert pace.wait_s() == 1.0
