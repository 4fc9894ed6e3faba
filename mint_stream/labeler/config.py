"""What a labeler is told."""

from __future__ import annotations

from dataclasses import dataclass

from mint_stream.config import BankScope, MethodConfig, ModelConfig
from mint_stream.labeler.abstention import Abstention


@dataclass(frozen=True, kw_only=True)
class LabelerConfig:
    """What a labeler needs to know; small, and the same for all labelers of a run."""

    model: ModelConfig
    method: MethodConfig
    phrases: tuple[tuple[str, ...], ...]
    templates: tuple[str, ...]
    model_hash: str
    classes_hash: str
    bank_scope: BankScope = "shared"
    seed: int = 0
    relabels: bool = False
    """Units are labelled again: the bank is read and learns nothing."""
    shadow: bool = False
    """The frozen answer stands, and the adapted one is recorded beside it."""
    adapt_budget: float | None = None
    top_k: int = 5
    abstention: Abstention | None = None
    """When a row carries no label; None if it always does."""
    labelers: int = 1
    """How many share the bank."""
    threads: int | None = None
    """CPU threads for torch; None leaves torch's own choice."""
