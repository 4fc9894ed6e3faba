"""A labelled unit, what is told of it, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class CameraDomain:
    """Where one camera's frames of a unit stand; see `method.domains`."""

    camera: str
    """`""` for frames without one."""
    domain: int
    drift: float | None
    guard: str
    frames: int


@dataclass(frozen=True, kw_only=True)
class UnitFacts:
    """What is told of a labelled unit: counts, seconds, the bank, the cameras."""

    labelled: int = 0
    abstained: int = 0
    """Labelled frames without a label, none being sure enough."""
    adapted: int = 0
    spared: int = 0
    """Frames that an adaptation budget left no time for."""
    adapt_seconds: float = 0.0
    """What that budget counted."""
    passes: int = 0
    """What the labels cost, in encoder passes over one view, forward and backward."""
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Rejects by stage."""
    left_out: str | None = None
    """Members of its shard that are of kinds that are not read, where it is the last unit."""
    bank_seq: int | None = None
    """Merges that the bank has seen; None without a bank."""
    bank_staleness: int | None = None
    """Those of them that other labelers made while this unit was labelled."""
    cameras: tuple[CameraDomain, ...] = ()
    """Empty where there are no domains."""
    stage_seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LabelledUnit:
    """label -> commit: the objects to write, ready as bytes, and what is told of them."""

    unit: str
    shard_id: str
    partial: bool
    shard_frames: int | None
    labels: bytes
    rejects: bytes | None
    log_name: str
    """Of the unit's bank log; "" where it has none."""
    log: bytes | None
    facts: UnitFacts


@dataclass(frozen=True, kw_only=True)
class CommittedUnit:
    """commit -> driver."""

    unit: str
    won: bool
    """False where another attempt had committed the unit before."""
    facts: UnitFacts
