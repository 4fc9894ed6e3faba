"""One image on its way through a replica: the question, and its answer or problem."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from mint_stream.method.prediction import Prediction
from mint_stream.serving.banks.reader import Reading, Topk
from mint_stream.serving.http.intake import Picture
from mint_stream.serving.http.messages import Label, Score, Shadow
from mint_stream.serving.http.problems import Problem


@dataclass(frozen=True, kw_only=True)
class Question:
    """A decoded image that waits for the model."""

    frame: str
    camera: str | None
    top_k: int
    picture: Picture
    view_1CHW: Tensor
    """View 0, normalised."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model says."""

    prediction: Prediction
    """The adapted answer, or the frozen one where nothing has been learned."""
    source_topk: Topk
    scope: str
    seq: int
    source_stands: bool = False
    """The frozen answer is given, and the adapted one beside it (`adapt: shadow`). Then
    `source_topk` is of all classes."""

    @classmethod
    def of(cls, reading: Reading) -> Answer:
        """What was read from a bank."""
        return cls(
            prediction=reading.prediction,
            source_topk=reading.source_topk,
            scope=reading.scope,
            seq=reading.seq,
        )


Outcome = Answer | Problem


@dataclass(frozen=True)
class Identity:
    """What every answer says of the service."""

    preset: str
    model: str
    classes: str


def message(question: Question, answer: Answer, identity: Identity, ms: float) -> Label:
    """The answer as it is sent."""
    found, k = answer.prediction, question.top_k
    topk, source_topk = _scores(found.topk, k), _scores(answer.source_topk, k)
    shadow = None
    if answer.source_stands:
        shadow = Shadow.model_construct(
            label=found.label,
            confidence=found.confidence,
            entropy=found.entropy,
            topk=topk,
        )
    return Label.model_construct(
        frame=question.frame,
        camera=question.camera,
        width=question.picture.width,
        height=question.picture.height,
        label=found.source_label if shadow else found.label,
        confidence=found.source_confidence if shadow else found.confidence,
        entropy=_entropy(answer.source_topk) if shadow else found.entropy,
        topk=source_topk if shadow else topk,
        source_label=found.source_label,
        source_confidence=found.source_confidence,
        source_topk=source_topk,
        adapted=found.adapted and not shadow,
        shadow=shadow,
        bank_scope=answer.scope,
        bank_seq=answer.seq,
        preset=identity.preset,
        model=identity.model,
        classes=identity.classes,
        ms=round(ms, 3),
    )


def _entropy(topk: Topk) -> float:
    """Of a whole distribution, nats."""
    return -sum(score * math.log(score) for _, score in topk if score > 0)


def _scores(topk: Topk, k: int) -> list[Score]:
    return [{"label": label, "score": score} for label, score in topk[:k]]
