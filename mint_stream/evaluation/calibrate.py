"""Fit a temperature and the least confidence of each class to an output whose truth is known.

Shapes: N frames with a truth, K scores a frame, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mint_stream.config import ConfigError
from mint_stream.evaluation.metrics import calibration_error, reliability
from mint_stream.labeler.abstention import Calibration, rest, temper
from mint_stream.output.accuracy import with_truth
from mint_stream.output.read import read_labels
from mint_stream.output.settings import read_settings
from mint_stream.store.store import Store

Floats = NDArray[np.float64]

LEAST_FRAMES = 100
STRETCHES = 10
"""The stream is cut into so many; what is fitted on every other one is tested on the others."""
_LEAST_OF_A_CLASS = 30
"""Labels of a class from which on it has a threshold of its own."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """Frames whose truth is known, in the order of the stream."""

    labels_N: NDArray[np.object_]
    """The most probable one of each."""
    scores_NK: Floats
    place_N: NDArray[np.int64]
    """Of the truth among the K; -1 where it is another class, -2 where it is none of the list."""
    classes: int

    @property
    def right_N(self) -> NDArray[np.bool_]:
        """Whether the most probable label is right."""
        return self.place_N == 0

    def take(self, rows_N: NDArray[np.bool_]) -> Known:
        """Some of the frames."""
        return Known(
            labels_N=self.labels_N[rows_N],
            scores_NK=self.scores_NK[rows_N],
            place_N=self.place_N[rows_N],
            classes=self.classes,
        )


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A temperature, and the least calibrated confidence for a precision."""

    temperature: float
    thresholds: dict[str, float | None]
    otherwise: float

    def answered(self, known: Known) -> NDArray[np.bool_]:
        """Which frames keep their label."""
        least = {name: 2.0 if v is None else v for name, v in self.thresholds.items()}
        least_N = np.array([least.get(label, self.otherwise) for label in known.labels_N])
        answered_N: NDArray[np.bool_] = self.confidence(known) >= least_N
        return answered_N

    def confidence(self, known: Known) -> Floats:
        """Calibrated: (N,)."""
        return temper(known.scores_NK, known.classes, self.temperature)[:, 0]


@dataclass(frozen=True, kw_only=True)
class Tested:
    """How good a calibration is on frames that it was not fitted on. Shares in [0, 1]."""

    frames: int
    accuracy: float
    """Of all labels."""
    ece_before: float
    ece_after: float
    coverage: float
    """Share of the frames that keep their label."""
    precision: float
    """Share of those that is right."""


def calibrate(output: str, truth: pa.Table, *, precision: float) -> tuple[Calibration, Tested]:
    """Fit to the frames of `output` whose truth is known; with it, how good that is.

    truth: columns frame, domain and label. A truth that is no class of the output has no right
    answer: it counts for the thresholds and not for the temperature. Raises `ConfigError` where
    there is too little to fit, `StorageError` as the store does.
    """
    settings = read_settings(Store(output))
    if not settings:
        raise ConfigError(f"{output} has no run.json: it is no output")
    known = known_frames(read_labels(output), truth, settings["classes"])
    frames = int((known.place_N > -2).sum())
    if frames < LEAST_FRAMES:
        raise ConfigError(
            f"{frames} frames of {output} have a truth that is one of its classes, which is too "
            f"few. {how_many(output)}"
        )
    fitted = fit(known, precision)
    calibration = Calibration(
        **asdict(fitted),
        model_hash=settings["model_hash"],
        classes_hash=settings["classes_hash"],
        preset=settings["preset"]["name"],
        top_k=known.scores_NK.shape[1],
    )
    return calibration, cross_tested(known, precision)


def how_many(output: str) -> str:
    """How many answers are needed, and how to come by them."""
    classes = len(read_settings(Store(output)).get("classes", ()))
    wanted = max(LEAST_FRAMES, _LEAST_OF_A_CLASS * classes)
    return (
        f"To calibrate, the truth of at least {LEAST_FRAMES} frames must be known; of about "
        f"{wanted:,}, {_LEAST_OF_A_CLASS} of each class, for each to have a threshold of its own. "
        f"Take them at random: mint-stream export {output} --first random --limit {wanted}, then "
        "import-review"
    )


def known_frames(labels: pa.Table, truth: pa.Table, classes: Sequence[str]) -> Known:
    """The rows of `labels` whose truth is known, as numbers."""
    table = with_truth(labels, truth)
    table = table.filter(pc.is_valid(table["truth"]))
    names = table["topk_labels"].to_pylist()
    truths, known = table["truth"].to_pylist(), set(classes)
    place = [
        best.index(true) if true in best else -1 if true in known else -2
        for best, true in zip(names, truths, strict=True)
    ]
    return Known(
        labels_N=np.array([best[0] for best in names], dtype=object),
        scores_NK=np.array(table["topk_scores"].to_pylist(), dtype=np.float64),
        place_N=np.array(place, dtype=np.int64),
        classes=len(classes),
    )


def fit(known: Known, precision: float) -> Fit:
    """The temperature of least negative log-likelihood, then thresholds on what it gives."""
    temperature = fit_temperature(known)
    confidence_N = temper(known.scores_NK, known.classes, temperature)[:, 0]
    otherwise = threshold(confidence_N, known.right_N, precision)
    thresholds = {}
    for name in sorted(set(known.labels_N)):
        own_N = known.labels_N == name
        if own_N.sum() >= _LEAST_OF_A_CLASS:
            thresholds[name] = threshold(confidence_N[own_N], known.right_N[own_N], precision)
    return Fit(
        temperature=temperature,
        thresholds=thresholds,
        otherwise=1.0 if otherwise is None else otherwise,
    )


def fit_temperature(known: Known) -> float:
    """Between 0.05 and 20, by golden section over its logarithm."""
    inside = known.take(known.place_N > -2)

    def loss(log_temperature: float) -> float:
        temperature = math.exp(log_temperature)
        tempered_NK = temper(inside.scores_NK, inside.classes, temperature)
        true_N = np.take_along_axis(tempered_NK, np.maximum(inside.place_N, 0)[:, None], 1)[:, 0]
        other_N = rest(tempered_NK, inside.classes)
        p_N = np.where(inside.place_N < 0, other_N, true_N)
        return float(-np.log(np.maximum(p_N, 1e-12)).mean())

    return math.exp(lowest(loss, math.log(0.05), math.log(20)))


def lowest(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one valley is lowest, by golden section."""
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > 1e-5:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    return (low + high) / 2


def threshold(confidence_N: Floats, right_N: NDArray[np.bool_], precision: float) -> float | None:
    """The least confidence from which on answers are right often enough; None if there is none."""
    order = np.argsort(-confidence_N, kind="stable")
    sorted_N = confidence_N[order]
    right = np.cumsum(right_N[order])
    count = np.arange(1, len(order) + 1)
    # Frames of the same confidence stand or fall together.
    last = np.append(sorted_N[1:] < sorted_N[:-1], True)
    # One standard error to spare: the least of many cuts looks better than it is.
    needed = precision * count + np.sqrt(count * precision * (1 - precision))
    enough = np.flatnonzero(last & (right >= needed))
    return float(sorted_N[enough[-1]]) if len(enough) else None


def cross_tested(known: Known, precision: float) -> Tested:
    """Each half of the stream's stretches under the calibration of the other half."""
    stretch_N = np.arange(len(known.labels_N)) * STRETCHES // len(known.labels_N)
    confidence_N = np.zeros(len(stretch_N))
    answered_N = np.zeros(len(stretch_N), dtype=bool)
    for half in (0, 1):
        tested_N = stretch_N % 2 == half
        fitted, tested = fit(known.take(~tested_N), precision), known.take(tested_N)
        confidence_N[tested_N] = fitted.confidence(tested)
        answered_N[tested_N] = fitted.answered(tested)
    right_N = known.right_N
    return Tested(
        frames=len(right_N),
        accuracy=float(right_N.mean()),
        ece_before=calibration_error(reliability(known.scores_NK[:, 0], right_N)),
        ece_after=calibration_error(reliability(confidence_N, right_N)),
        coverage=float(answered_N.mean()),
        precision=float(right_N[answered_N].mean()) if answered_N.any() else 0.0,
    )
