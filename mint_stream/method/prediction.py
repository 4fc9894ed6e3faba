"""An answer for one image, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a prediction cost, in encoder passes over one view."""

    forwards: int
    backwards: int


ONE_PASS = Cost(forwards=1, backwards=0)
"""Of the frozen model, and of whatever needs no other pass than that one."""


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
    guard: str = "off"
    """What the guard said (`guard.verdict`); `off` where none watches, `budget` where there was no
    time to adapt."""
    bank_domain: int | None = None
    """Of a bank of domains, the entry that the image belongs to."""
    drift: float | None = None
    """How far its domain lies from that which the bank began with (`DomainBank.drift`)."""
