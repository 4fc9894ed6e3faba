"""The guard's rule, line by line: `mint_stream/method/guard.py`."""

from __future__ import annotations

import dataclasses

import pytest

from mint_stream.method.guard import ADAPTING, LEARNING, Evidence, verdict

HEALTHY = Evidence(
    frames=60,
    stream_frames=500,
    spread=1.0,
    within=1.0,
    mixed=1.0,
    diversity=0.9,
    usual_spread=1.0,
    widest_spread=1.0,
)


def test_a_diverse_domain_is_adapted_to() -> None:
    assert verdict(HEALTHY) == ADAPTING


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"frames": 15}, LEARNING),
        ({"stream_frames": 127}, LEARNING),
        ({"within": 0.84}, "correlated"),
        ({"mixed": 0.84}, "correlated"),
        ({"diversity": 0.39}, "uniform"),
        ({"diversity": 0.69, "widest_spread": 0.0, "usual_spread": 0.0}, "uniform"),
        ({"spread": 0.6, "within": 0.6}, "narrow"),
    ],
)
def test_each_reason_alone_is_enough_to_leave_the_frozen_answer(
    change: dict[str, float], said: str
) -> None:
    assert verdict(dataclasses.replace(HEALTHY, **change)) == said


@pytest.mark.parametrize(
    "change",
    [
        {"frames": 16},
        {"stream_frames": 128},
        {"within": 0.86},
        {"diversity": 0.41},
        {"diversity": 0.71, "widest_spread": 0.0, "usual_spread": 0.0},
        {"spread": 0.7, "within": 0.7},
    ],
)
def test_what_is_just_allowed(change: dict[str, float]) -> None:
    assert verdict(dataclasses.replace(HEALTHY, **change)) == ADAPTING


def test_collapsed_features_need_no_diverse_answers() -> None:
    dark = dataclasses.replace(
        HEALTHY, spread=0.3, within=0.3, diversity=0.1, usual_spread=0.0, widest_spread=1.0
    )
    assert verdict(dark) == ADAPTING
    assert verdict(dataclasses.replace(dark, within=0.2)) == "correlated"
    assert verdict(dataclasses.replace(dark, spread=0.4, within=0.4)) == "uniform"
