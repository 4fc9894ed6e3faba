"""Answers for frames and what they cost: as columns, and for one image as a record.

Shapes: B frames, C classes, K most probable labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from mint_stream.method import guard

Floats = NDArray[np.floating]
_NONE = -1
"""In place of an index where there is none."""
_FEW = 16
"""Up to so many are found faster one after the other than by a sort of all classes."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a prediction cost, in encoder passes over one view."""

    forwards: int
    backwards: int


ONE_PASS = Cost(forwards=1, backwards=0)
"""Of the frozen model, and of whatever needs no other pass than that one."""


@dataclass(frozen=True)
class Standing:
    """Where a frame stands: what the guard says of its domain, and how far that has drifted."""

    verdict: str = guard.LEARNING
    entry: int | None = None
    """The domain; None where no bank knows the frame."""
    drift: float | None = None
    """How far the camera's frames lie from the domain that the bank began with."""


UNWATCHED = Standing(verdict=guard.NO_GUARD)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a method says of B frames beside the frozen model."""

    p_BC: Floats
    """Probabilities; a row that is not finite is no answer."""
    standings: Sequence[Standing]
    """Of each frame. The answer stands where the verdict is `ADAPTING`, or no guard watches."""
    cost: Cost = ONE_PASS
    """Of each frame, with the frozen model's own pass."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """An answer for one image, with the frozen model's beside it."""

    label: str
    confidence: float
    """Probability of `label`."""
    entropy: float
    """Of the predicted distribution, nats."""
    topk: tuple[tuple[str, float], ...]
    """Labels and probabilities, best first."""
    source_label: str
    source_confidence: float
    adapted: bool
    """Whether this is the adapted answer; the frozen one stands where adapting went wrong."""
    adapted_label: str | None = None
    """The adapted answer, whether or not it stands; None where there is none."""
    adapted_confidence: float | None = None
    cost: Cost
    guard: str = guard.NO_GUARD
    """What the guard said (`guard.verdict`); `off` where none watches, `budget` where there was no
    time to adapt."""
    bank_domain: int | None = None
    """Of a bank of domains, the entry that the image belongs to."""
    drift: float | None = None
    """How far its domain lies from that which the bank began with (`DomainBank.drift`)."""


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Answers for B frames, as columns; `predictions[b]` is one as a record.

    Classes are indices into `labels`. Of equally probable classes the first in the list is the
    answer, whoever gives it.
    """

    labels: tuple[str, ...]
    topk_BK: NDArray[np.int64]
    """The most probable classes, best first."""
    scores_BK: Floats
    """Their probabilities."""
    entropy_B: Floats
    """nats"""
    source_BC: Floats
    """The frozen model's probabilities."""
    source_B: NDArray[np.int64]
    source_score_B: Floats
    """The frozen model's answer, and its probability."""
    adapted_B: NDArray[np.bool_]
    """Whether the adapted answer stands."""
    adapted_label_B: NDArray[np.int64]
    """The adapted answer, whether or not it stands; -1 where there is none."""
    adapted_score_B: Floats
    """NaN where there is none."""
    guard_B: NDArray[np.object_]
    domain_B: NDArray[np.int64]
    """-1 without a domain."""
    drift_B: Floats
    """NaN without one."""
    forwards_B: NDArray[np.int64]
    backwards_B: NDArray[np.int64]
    """Encoder passes over one view."""

    def __len__(self) -> int:
        return len(self.entropy_B)

    def __getitem__(self, b: int) -> Prediction:
        names = [self.labels[index] for index in self.topk_BK[b]]
        found = int(self.adapted_label_B[b])
        domain, drift = int(self.domain_B[b]), float(self.drift_B[b])
        return Prediction(
            label=names[0],
            confidence=float(self.scores_BK[b, 0]),
            entropy=float(self.entropy_B[b]),
            topk=tuple(zip(names, self.scores_BK[b].tolist(), strict=True)),
            source_label=self.labels[self.source_B[b]],
            source_confidence=float(self.source_score_B[b]),
            adapted=bool(self.adapted_B[b]),
            adapted_label=None if found == _NONE else self.labels[found],
            adapted_confidence=None if found == _NONE else float(self.adapted_score_B[b]),
            cost=Cost(forwards=int(self.forwards_B[b]), backwards=int(self.backwards_B[b])),
            guard=str(self.guard_B[b]),
            bank_domain=None if domain == _NONE else domain,
            drift=None if np.isnan(drift) else drift,
        )

    @property
    def passes(self) -> int:
        """Encoder passes over one view, forward and backward, of all frames together."""
        return int(self.forwards_B.sum() + self.backwards_B.sum())

    @classmethod
    def of(
        cls,
        labels: Sequence[str],
        source_BC: Floats,
        answers: Answers | None,
        *,
        top_k: int,
        shadow: bool = False,
        verdict: str = guard.NO_GUARD,
    ) -> Predictions:
        """The answers that stand, with both beside them.

        source_BC: the frozen model's probabilities. answers: None where there are no others, for
        the reason `verdict`. shadow: the frozen answer stands in any case.
        """
        frames = len(source_BC)
        standings = [Standing(verdict=verdict)] * frames if answers is None else answers.standings
        guard_B = np.array([standing.verdict for standing in standings], dtype=object)
        adapted_label_B = np.full(frames, _NONE)
        adapted_score_B = np.full(frames, np.nan)
        stands_B = np.zeros(frames, dtype=bool)
        p_BC, cost = source_BC, ONE_PASS
        if answers is not None:
            cost = answers.cost
            finite_B: NDArray[np.bool_] = np.isfinite(answers.p_BC.sum(-1))
            best_B = np.where(finite_B[:, None], answers.p_BC, 0.0).argmax(-1)
            adapted_label_B = np.where(finite_B, best_B, _NONE)
            adapted_score_B = np.where(finite_B, answers.p_BC[np.arange(frames), best_B], np.nan)
            trusted_B = np.isin(guard_B.astype(str), sorted(guard.TRUSTED))
            stands_B = trusted_B & finite_B & (not shadow)
            p_BC = np.where(stands_B[:, None], answers.p_BC, source_BC)
        topk_BK, scores_BK = most_probable(p_BC, top_k)
        source_B = source_BC.argmax(-1)
        log_p_BC = np.log(np.maximum(p_BC, 1e-38))
        return cls(
            labels=tuple(labels),
            topk_BK=topk_BK,
            scores_BK=scores_BK,
            entropy_B=-(p_BC * log_p_BC).sum(-1),
            source_BC=source_BC,
            source_B=source_B,
            source_score_B=source_BC[np.arange(frames), source_B],
            adapted_B=stands_B,
            adapted_label_B=adapted_label_B,
            adapted_score_B=adapted_score_B,
            guard_B=guard_B,
            domain_B=np.array([_NONE if s.entry is None else s.entry for s in standings], int),
            drift_B=np.array([np.nan if s.drift is None else s.drift for s in standings], float),
            forwards_B=np.full(frames, cost.forwards),
            backwards_B=np.full(frames, cost.backwards),
        )

    @classmethod
    def joined(cls, parts: Sequence[Predictions]) -> Predictions:
        """The predictions of several, one after the other; at least one."""
        columns = {
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(cls)
            if field.name != "labels"
        }
        return cls(labels=parts[0].labels, **columns)

    def take(self, rows: Sequence[int]) -> Predictions:
        """The predictions of some of the frames."""
        index = np.asarray(rows, dtype=np.int64)
        columns = {
            field.name: getattr(self, field.name)[index]
            for field in fields(self)
            if field.name != "labels"
        }
        return Predictions(labels=self.labels, **columns)


def most_probable(p_BC: Floats, k: int) -> tuple[NDArray[np.int64], Floats]:
    """The k largest of each row, best first; of equal ones the first. Indices and values: (B, K)"""
    rows, k = np.arange(len(p_BC)), min(k, p_BC.shape[1])
    if k > _FEW:
        topk_BK = np.argsort(-p_BC, axis=-1, kind="stable")[:, :k]
    else:
        left_BC = p_BC.copy()
        topk_BK = np.empty((len(p_BC), k), dtype=np.int64)
        for place in range(k):
            topk_BK[:, place] = left_BC.argmax(-1)
            left_BC[rows, topk_BK[:, place]] = -np.inf
    return topk_BK, p_BC[rows[:, None], topk_BK]
