"""Scores against plain loops, and intervals against streams whose spread is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mint_stream.config import PRESETS, ConfigError
from mint_stream.evaluation.metrics import (
    block_length,
    calibration_error,
    histogram_distance,
    macro_accuracy,
    paired_difference,
    reliability,
    worst_stretch,
)
from mint_stream.evaluation.variants import variant

answers = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("abc"), st.floats(0, 1)), min_size=1
)


@given(answers)
def test_scores_are_what_loops_make_of_them(frames: list[tuple[str, str, float]]) -> None:
    truth = np.array([t for t, _, _ in frames], dtype=object)
    label = np.array([given for _, given, _ in frames], dtype=object)
    confidence = np.array([c for _, _, c in frames])
    right = label == truth

    recalls = []
    for name in set(truth):
        own = [t == given for t, given, _ in frames if t == name]
        recalls.append(sum(own) / len(own))
    assert macro_accuracy(truth, right) == pytest.approx(sum(recalls) / len(recalls))

    gap = 0.0
    for step in range(15):
        inside = [(t == g, c) for t, g, c in frames if min(int(c * 15), 14) == step]
        if inside:
            gap += abs(sum(r for r, _ in inside) - sum(c for _, c in inside))
    assert calibration_error(reliability(confidence, right)) == pytest.approx(gap / len(frames))

    moved = sum(
        abs(list(truth).count(name) - list(label).count(name)) for name in set(truth) | set(label)
    )
    assert histogram_distance(label, truth) == pytest.approx(moved / 2 / len(frames))


def test_the_worst_stretch_is_found() -> None:
    right, other = np.ones(1000, bool), np.ones(1000, bool)
    right[300:350] = False
    other[320:330] = False
    assert worst_stretch(right, other, 100) == pytest.approx(-0.4)
    assert worst_stretch(right[:40], other[:40], 100) == 0


def test_blocks_are_as_long_as_runs_ask() -> None:
    shuffled = np.random.default_rng(0).permutation(np.repeat(list("abcdefghij"), 100))
    assert block_length(shuffled.astype(object)) == 10
    runs = np.repeat(np.array(list("abcab" * 5), dtype=object), 40)
    assert block_length(runs) == 80
    assert block_length(np.array(["a"], dtype=object)) == 1


def test_an_interval_holds_the_true_difference_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        # Answers that are right or wrong for 20 frames at a time: 2,000 frames, 100 of them free.
        ours, theirs = (np.repeat(rng.random(100) < share, 20) for share in (0.6, 0.5))
        found = paired_difference(ours, theirs, 40, draws=400, seed=seed)
        held += found.low <= 0.1 <= found.high
    assert 0.88 <= held / 200 <= 0.99
    narrow = paired_difference(ours, theirs, 1)
    wide = paired_difference(ours, theirs, 40)
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


def test_equal_answers_differ_by_nothing() -> None:
    right = np.random.default_rng(1).random(50) < 0.5
    found = paired_difference(right, right, 7)
    assert (found.mean, found.low, found.high) == (0, 0, 0)


def test_a_variant_is_its_preset_with_what_it_says() -> None:
    changed = variant("paper+steps=1+learning_rate=1e-3+distance_weight=0+algorithm=tpt")
    assert (changed.steps, changed.learning_rate, changed.distance_weight) == (1, 1e-3, 0.0)
    assert (changed.algorithm, changed.views) == ("tpt", PRESETS["paper"].views)
    assert changed.name == "paper+steps=1+learning_rate=1e-3+distance_weight=0+algorithm=tpt"
    assert variant("frozen") == PRESETS["frozen"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("papers", "preset is 'papers'"),
        ("paper+step=1", "made of the settings"),
        ("paper+steps", "PRESET"),
        ("paper+steps=1.5", "steps is '1.5'; it must be of the kind of 3"),
        ("paper+learning_rate=high", "learning_rate is 'high'; it must be a number"),
        ("paper+views=0", "views is 0"),
    ],
)
def test_a_variant_that_cannot_be_is_named(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        variant(name)
