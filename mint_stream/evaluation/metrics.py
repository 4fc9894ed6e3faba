"""How good answers are: accuracy, calibration, label histogram, and the difference of two models.

Shapes: N frames in the order of the stream, whose truth is known.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.object_]
Right = NDArray[np.bool_]
Floats = NDArray[np.float64]

BINS = 15
DRAWS = 2000


@dataclass(frozen=True)
class Bin:
    """Answers of about the same confidence."""

    frames: int
    confidence: float
    """Their mean confidence."""
    accuracy: float
    """The share of them that is right."""


@dataclass(frozen=True)
class Interval:
    """A mean with a 95 % interval."""

    mean: float
    low: float
    high: float


def macro_accuracy(truth_N: Labels, right_N: Right) -> float:
    """Mean over the classes that occur of the share of each class's frames that is right."""
    return float(np.mean([right_N[truth_N == name].mean() for name in dict.fromkeys(truth_N)]))


def reliability(confidence_N: Floats, right_N: Right, bins: int = BINS) -> list[Bin]:
    """The answers in `bins` equal steps of confidence; steps without an answer are left out."""
    step_N = np.minimum((confidence_N * bins).astype(int), bins - 1)
    return [
        Bin(int(inside.sum()), float(confidence_N[inside].mean()), float(right_N[inside].mean()))
        for inside in (step_N == step for step in range(bins))
        if inside.any()
    ]


def calibration_error(bins: list[Bin]) -> float:
    """Expected calibration error (Naeini et al. 2015): mean gap of confidence and accuracy."""
    frames = sum(step.frames for step in bins)
    return sum(step.frames * abs(step.confidence - step.accuracy) for step in bins) / frames


def histogram_distance(label_N: Labels, truth_N: Labels) -> float:
    """Total variation between the histograms of labels and truth: 0 equal, 1 disjoint."""
    given, true = Counter(label_N), Counter(truth_N)
    return sum(abs(given[name] - true[name]) for name in given | true) / (2 * len(truth_N))


def block_length(truth_N: Labels) -> int:
    """Frames in a block of the bootstrap: twice the mean run of one class, at least N ** (1/3).

    In a shuffled stream a run is hardly longer than a frame; where neighbours look alike, blocks
    have to hold whole runs, or the interval comes out too narrow.
    """
    runs = 1 + int((truth_N[1:] != truth_N[:-1]).sum())
    wanted = max(2 * len(truth_N) / runs, len(truth_N) ** (1 / 3))
    return max(1, min(len(truth_N) // 2, round(wanted)))


def paired_difference(
    right_N: Right, other_right_N: Right, block: int, *, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """Accuracy minus the other's on the same frames, with its circular block bootstrap.

    Each draw joins random stretches of `block` frames of the stream (which is closed to a circle)
    to one of N frames; the interval is from the 2.5th to the 97.5th percentile of their means.
    """
    gain_N = right_N.astype(np.float64) - other_right_N
    count = len(gain_N)
    sums = np.concatenate([[0.0], np.cumsum(np.concatenate([gain_N, gain_N]))])
    whole, rest = divmod(count, block)
    starts = np.random.default_rng(seed).integers(0, count, (draws, whole + 1))
    lengths = np.array([block] * whole + [rest])
    means = (sums[starts + lengths] - sums[starts]).sum(1) / count
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(gain_N.mean()), float(low), float(high))


def worst_stretch(right_N: Right, other_right_N: Right, frames: int = 500) -> float:
    """The lowest difference of accuracies over any `frames` consecutive frames (or all)."""
    gain_N = right_N.astype(np.float64) - other_right_N
    frames = min(frames, len(gain_N))
    sums = np.concatenate([[0.0], np.cumsum(gain_N)])
    return float((sums[frames:] - sums[:-frames]).min() / frames)
