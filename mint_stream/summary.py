"""What a run did, as a small record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """The end of a run. Counts are of this run alone, except `already_done`."""

    output: str
    """Root of the outputs, as it was given."""
    preset: str
    frames: int
    """Frames that this run labelled and committed."""
    units: int
    """Units that this run committed."""
    seconds: float
    """Wall time of the run, from its call to its return."""
    already_done: int = 0
    """Frames, labelled or rejected, that the output already held when the run began."""
    rejects: Mapping[str, int] = field(default_factory=dict)
    """Rows written to `rejects/`, by stage (list, read, decode, label)."""
    adapted: int = 0
    """Frames among `frames` whose adapted answer stands."""
    startup_s: float = 0.0
    """Part of `seconds` before the first frame was labelled: Ray, listing, loading the model."""
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds that the labelers spent by stage (views, encoder, text, bank, merge, ...)."""
    bank_seq: int | None = None
    """Merges that the bank has seen, over all runs of this output; None where none is kept."""
    stopped: str | None = None
    """Why the run ended before its input did (`interrupted`, ...); None if it did not."""

    @property
    def rejected(self) -> int:
        """Rows written to `rejects/`, all stages together."""
        return sum(self.rejects.values())

    @property
    def frames_per_s(self) -> float:
        """Frames labelled a second once labelling had begun; 0 where nothing was labelled."""
        working_s = self.seconds - self.startup_s
        return self.frames / working_s if self.frames and working_s > 0 else 0.0

    @property
    def adapted_share(self) -> float:
        """Share of `frames` whose adapted answer stands, in [0, 1]; 0 where there are none."""
        return self.adapted / self.frames if self.frames else 0.0
