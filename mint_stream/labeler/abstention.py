"""When no label is better than one: calibrated confidence, and the least of it for each class.

A confidence is calibrated by a temperature (Guo et al. 2017, "On calibration of modern neural
networks") that was fitted on frames whose truth is known: `mint-stream calibrate`. It
works on what stands in a row, the scores of the most probable labels, so that what is fitted on an
output is what a run does. The rest of the probability counts as spread evenly over other classes.

Shapes: N frames, K scores a frame, best first, of C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mint_stream.config import ConfigError

Floats = NDArray[np.float64]

_LEAST = 1e-12
"""Probability of what has none: its logarithm is needed."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What a calibration file says. Raises `ConfigError` for numbers that cannot be."""

    temperature: float
    otherwise: float
    """Least calibrated confidence of classes that have no number of their own."""
    thresholds: Mapping[str, float | None] = field(default_factory=dict)
    """The same of single classes; None for one that is never sure enough."""
    model_hash: str
    classes_hash: str
    preset: str
    top_k: int
    """What it was fitted on, and so what it holds for."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ConfigError(f"temperature is {self.temperature!r}; it must be positive")
        for name, value in {**self.thresholds, "otherwise": self.otherwise}.items():
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"the threshold of {name!r} is {value!r}; it must be in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class Abstention:
    """When a row carries no label: below the least confidence of its class."""

    calibration: Calibration | None = None
    """Without one confidences are taken as they are."""
    min_confidence: float | None = None
    """The least for all classes, instead of the calibration's thresholds."""
    classes: int

    def calibrated(self, scores_NK: Floats) -> Floats | None:
        """The calibrated confidences of the first scores: (N,); None without a calibration."""
        if self.calibration is None:
            return None
        first_N: Floats = temper(scores_NK, self.classes, self.calibration.temperature)[:, 0]
        return first_N

    def least(self, label: str) -> float | None:
        """The confidence that `label` needs; None if none is enough."""
        if self.min_confidence is not None:
            return self.min_confidence
        assert self.calibration is not None
        return self.calibration.thresholds.get(label, self.calibration.otherwise)

    def answers(
        self, labels: Sequence[str], label_N: NDArray[np.int64], confidence_N: Floats
    ) -> NDArray[np.bool_]:
        """Whether each label stands at its confidence, calibrated where there is a calibration.

        label_N: indices into `labels`.
        """
        least = [self.least(label) for label in labels]
        least_C = np.array([math.inf if value is None else value for value in least])
        stands_N: NDArray[np.bool_] = confidence_N >= least_C[label_N]
        return stands_N

    def describe(self) -> str:
        """The least confidence, in words."""
        c = self.calibration
        if self.min_confidence is not None:
            said = f"below {self.min_confidence:g}"
        else:
            assert c is not None
            some = [value for value in (*c.thresholds.values(), c.otherwise) if value is not None]
            never = sum(value is None for value in c.thresholds.values())
            said = f"below {min(some):.2f} to {max(some):.2f}, by class"
            said += f"; {never} of the classes always" if never else ""
        return said + (f"; temperature {c.temperature:.2f}" if c is not None else "")


def temper(scores_NK: Floats, classes: int, temperature: float) -> Floats:
    """The scores (N, K) after dividing the logits by `temperature`, of `classes` in all."""
    others = classes - scores_NK.shape[1]
    power = 1 / temperature
    powered_NK = np.maximum(scores_NK, 0.0) ** power
    total_N = powered_NK.sum(1)
    if others:
        total_N = total_N + others * (rest(scores_NK, classes) ** power)
    tempered_NK: Floats = powered_NK / np.maximum(total_N, _LEAST)[:, None]
    return tempered_NK


def rest(scores_NK: Floats, classes: int) -> Floats:
    """Probability of each class that is not among the K: (N,)."""
    left_N: Floats = np.maximum(1 - scores_NK.sum(1), 0.0) / max(classes - scores_NK.shape[1], 1)
    return left_N
