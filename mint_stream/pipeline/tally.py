"""What a run has committed so far, counted by its driver."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from mint_stream.pipeline.summary import BESIDE


@dataclass
class Tally:
    """What a run has committed so far."""

    frames: int = 0
    units: int = 0
    abstained: int = 0
    adapted: int = 0
    spared: int = 0
    adapt_s: float = 0.0
    rejects: Counter[str] = field(default_factory=Counter)
    stage_seconds: Counter[str] = field(default_factory=Counter)
    labelling_since: float | None = None
    """When the first unit reached a labeler, by the monotonic clock."""

    def add(self, unit: dict[str, Any]) -> None:
        """Count one rows.COMMITTED_ROW."""
        seconds = json.loads(unit["stage_seconds"])
        self.stage_seconds.update(seconds)
        self.adapt_s += unit["adapt_seconds"]
        if not unit["won"]:
            return
        self.units += 1
        self.frames += unit["labelled"]
        self.abstained += unit["abstained"]
        self.adapted += unit["adapted"]
        self.spared += unit["spared"]
        self.rejects.update(json.loads(unit["rejected"]))
        if self.labelling_since is None and unit["labelled"]:
            in_labeler_s = sum(s for stage, s in seconds.items() if stage not in BESIDE)
            self.labelling_since = time.monotonic() - in_labeler_s

    def catch_up(self, units: int, frames: int) -> None:
        """Count what was committed and not told of before a labeler died.

        units, frames: what the run has committed by now, frames labelled or rejected; the ones
        that were not told of count as labelled.
        """
        self.units = units
        # A shard that is refused is a row, and none of its frames.
        rejected = sum(self.rejects.values()) - self.rejects["list"]
        self.frames = max(self.frames, frames - rejected)
