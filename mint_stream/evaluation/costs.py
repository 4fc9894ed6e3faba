"""What labelling cost, as `run` notes it unit by unit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

COSTS = "costs.jsonl"


@dataclass(frozen=True)
class Costs:
    """What labelling cost, over the units that were timed."""

    frames: int
    seconds: float
    """Of the labeler alone: reading, decoding and committing are not in it."""
    passes: int
    """Encoder passes over one view, forward and backward."""
    adapted: int
    """Frames whose adapted answer stands."""

    @property
    def ms(self) -> float:
        """Milliseconds a frame."""
        return 1000 * self.seconds / max(1, self.frames)


def read_costs(output: str) -> Costs:
    """What the units in `output` cost; one that was labelled twice counts as it was at last."""
    lines = (Path(output) / COSTS).read_text().splitlines()
    units = {unit["unit"]: unit for unit in map(json.loads, lines)}.values()
    frames, seconds, passes, adapted = (
        sum(unit[name] for unit in units) for name in ("frames", "seconds", "passes", "adapted")
    )
    return Costs(frames, seconds, passes, adapted)
