"""The table of cameras as numbers: filter and smoother, replay, bounds, gains on toy streams."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from mint_stream.method.camera_state import CameraState, empty_state, merge
from mint_stream.method.cameras import answer
from mint_stream.method.class_axes import ClassAxes, class_axes, unit
from mint_stream.method.sticky_chain import backward, forward, stay, together

D, E, C = 48, 32, 10
Array = NDArray[np.float64]
Step = tuple[ClassAxes, str, NDArray[np.int64], tuple[Array, Array, Array]]
"""Axes, camera, labels of the frames; queries, activations and frozen logits."""


def world(seed: int = 0) -> tuple[np.random.Generator, Array, Array]:
    rng = np.random.default_rng(seed)
    projection_DE = rng.standard_normal((D, E)) / np.sqrt(D)
    text_CE = unit(rng.standard_normal(E) * 1.5 + rng.standard_normal((C, E)))
    return rng, projection_DE, text_CE


def frames(
    rng: np.random.Generator,
    projection_DE: Array,
    text_CE: Array,
    labels_B: NDArray[np.int64],
    noise: float = 0.35,
) -> tuple[Array, Array, Array]:
    feature_BE = text_CE[labels_B] + noise * rng.standard_normal((len(labels_B), E))
    activation_BD = feature_BE @ np.linalg.pinv(projection_DE)
    frozen_BC = 15 * unit(feature_BE) @ text_CE.T
    return rng.standard_normal((len(labels_B), D)), activation_BD, frozen_BC


def stream(
    steps: int = 40,
    step: int = 16,
    cameras: Sequence[str] = ("a", "b", "c"),
    seed: int = 0,
    run: int = 40,
) -> Iterator[Step]:
    rng, projection_DE, text_CE = world(seed)
    axes = class_axes(projection_DE, text_CE, 15.0)
    showing: dict[str, tuple[int, int]] = {}
    for k in range(steps):
        camera, labels = cameras[k % len(cameras)], []
        for _ in range(step):
            name, left = showing.get(camera, (0, 0))
            if left <= 0:
                name, left = int(rng.integers(C)), int(rng.integers(run // 2, run))
            showing[camera] = (name, left - 1)
            labels.append(name)
        labels_B = np.array(labels)
        yield axes, camera, labels_B, frames(rng, projection_DE, text_CE, labels_B)


def same(a: CameraState, b: CameraState) -> bool:
    if (a.rows.keys(), a.epoch) != (b.rows.keys(), b.epoch):
        return False
    pairs = [(a.sums[name], b.sums[name]) for name in a.sums]
    for camera, row in a.rows.items():
        other = dataclasses.asdict(b.rows[camera])
        pairs += [(value, other[name]) for name, value in dataclasses.asdict(row).items()]
    return all(np.array_equal(x, y, equal_nan=True) for x, y in pairs)


def test_filter_equals_smoother_at_the_last_frame() -> None:
    state = empty_state(C)
    for axes, camera, _, (query, activation, frozen) in stream():
        a = answer(state, axes, query, activation, frozen, camera, smooth=True)
        b = answer(state, axes, query, activation, frozen, camera, smooth=False)
        assert a.verdict == b.verdict
        assert same(merge(state, a.update), merge(state, b.update))
        assert np.array_equal(a.p_BC[-1].argsort(), b.p_BC[-1].argsort())
        state = merge(state, a.update)


def test_chain_equals_brute_force_and_agrees_at_the_last_frame() -> None:
    rng = np.random.default_rng(2)
    logits, stickiness, classes = rng.standard_normal((4, 3)), 0.7, 3
    prior, before = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.2, 0.7])
    p, e = np.zeros((4, classes)), np.exp(logits)
    move = stickiness * np.eye(classes) + (1 - stickiness) * prior
    for path in np.ndindex(*(classes,) * 4):
        weight = (before @ move)[path[0]] * e[0, path[0]]
        for t in range(1, 4):
            weight *= move[path[t - 1], path[t]] * e[t, path[t]]
        for t in range(4):
            p[t, path[t]] += weight
    filtered = forward(logits, stickiness, before, prior)
    smooth = backward(filtered, logits, stickiness, prior)
    np.testing.assert_allclose(smooth, p / p.sum(1, keepdims=True), atol=1e-12)
    assert np.array_equal(smooth[-1], filtered[-1])


def test_replay_gives_the_same_bits() -> None:
    state, updates = empty_state(C), []
    for axes, camera, _, (query, activation, frozen) in stream():
        result = answer(state, axes, query, activation, frozen, camera)
        updates.append(result.update)
        state = merge(state, result.update)
    again = empty_state(C)
    for update in updates:
        again = merge(again, update)
    assert same(state, again)


def test_answer_changes_nothing_and_is_deterministic() -> None:
    state = empty_state(C)
    for axes, camera, _, (query, activation, frozen) in stream(steps=12):
        before = copy.deepcopy(state)
        a = answer(state, axes, query, activation, frozen, camera)
        b = answer(state, axes, query, activation, frozen, camera)
        assert np.array_equal(a.p_BC, b.p_BC)
        assert same(state, before)
        state = merge(state, a.update)


def test_cameras_not_seen_for_long_are_let_go() -> None:
    state = empty_state(C)
    for axes, camera, _, (query, activation, frozen) in stream(
        steps=60, cameras=tuple("abcdefghijkl")
    ):
        update = answer(state, axes, query, activation, frozen, camera).update
        state = merge(state, update, cameras=5)
    assert sorted(state.rows) == sorted("hijkl")


def test_an_update_that_is_not_finite_is_refused() -> None:
    axes, camera, _, (query, activation, frozen) = next(iter(stream(steps=1)))
    state = empty_state(C)
    update = answer(state, axes, query, activation, frozen, camera).update
    bad = dataclasses.replace(update, sums={**update.sums, "frames": np.array([np.nan])})
    with pytest.raises(ValueError, match="frames"):
        merge(state, bad)


def test_an_older_row_does_not_replace_a_newer() -> None:
    steps = list(stream(steps=6, cameras=("a",)))
    axes = steps[0][0]
    state = empty_state(C)
    updates = []
    for _, camera, _, (query, activation, frozen) in steps[:2]:
        updates.append(answer(state, axes, query, activation, frozen, camera).update)
        state = merge(state, updates[-1])
    assert merge(state, updates[0]).rows["a"].frames == 32


@pytest.mark.parametrize(("run", "least"), [(40, 0.01), (2, -0.01)])
def test_gains_on_runs_and_does_not_lose_on_shuffled(run: int, least: float) -> None:
    state, gain, n = empty_state(C), 0, 0
    for axes, camera, labels, (query, activation, frozen) in stream(steps=150, run=run):
        result = answer(state, axes, query, activation, frozen, camera)
        state = merge(state, result.update)
        gain += int((result.p_BC.argmax(1) == labels).sum())
        gain -= int((frozen.argmax(1) == labels).sum())
        n += len(labels)
    assert gain >= least * n


def test_probabilities_sum_to_one() -> None:
    state = empty_state(C)
    for axes, camera, _, (query, activation, frozen) in stream():
        result = answer(state, axes, query, activation, frozen, camera, smooth=False)
        np.testing.assert_allclose(result.p_BC.sum(1), 1)
        state = merge(state, result.update)


def test_independent_frames_do_not_stick_however_biased() -> None:
    rng = np.random.default_rng(3)
    bias = np.array([3.0] + [0.0] * 9)
    p = np.exp(bias + rng.standard_normal((2000, C)))
    p /= p.sum(1, keepdims=True)
    evidence, _ = together(p, None, p.sum(0))
    assert stay(evidence) < 0.05
