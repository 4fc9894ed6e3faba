"""What labelling cost, as `run` notes it unit by unit."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

COSTS = "costs.jsonl"


@dataclass(frozen=True)
class Costs:
    """What labelling cost, over the units that were timed."""

    frames: int = 0
    seconds: float = 0.0
    """Of the labeler alone: reading, decoding and committing are not in it."""
    passes: int = 0
    """Encoder passes over one view, forward and backward."""

    @property
    def ms_a_frame(self) -> float:
        """Milliseconds a frame."""
        return 1000 * self.seconds / max(1, self.frames)

    @property
    def passes_a_frame(self) -> float:
        """Encoder passes a frame."""
        return self.passes / max(1, self.frames)


def read_costs(output: str) -> Costs:
    """What the units in `output` cost; one that was labelled twice counts as it was at last."""
    path = Path(output) / COSTS
    units = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):  # whoever wrote it was killed
            unit = json.loads(line)
            units[unit["unit"]] = unit
    return Costs(
        **{name: sum(u[name] for u in units.values()) for name in ("frames", "seconds", "passes")}
    )
