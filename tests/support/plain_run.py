"""A run without Ray: the product's own, in this process."""

from __future__ import annotations

from mint_stream.config import RunConfig
from mint_stream.pipeline.in_process import run_in_process


def run_plainly(config: RunConfig, *, checkpoint_every: int = 0) -> int:
    """Label what is left with one labeler, and commit it; gives the number of units.

    checkpoint_every: units between two bank checkpoints; 0 for one at the end.
    """
    return run_in_process(config, checkpoint_every=checkpoint_every).units
