"""One preset over a stream in this process: what it wrote is an output as the pipeline writes it.

A run that was cut off goes on where it stopped. Beside the output stands `costs.jsonl`, a line for
each unit: what labelling it took.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from mint_stream.config import RunConfig
from mint_stream.evaluation.costs import COSTS
from mint_stream.output.units import CommittedUnit
from mint_stream.pipeline.in_process import run_in_process
from mint_stream.pipeline.summary import left_text
from mint_stream.store.errors import StorageError


def run_preset(
    config: RunConfig, on_frames: Callable[[int], None] = lambda frames: None, *, every: int = 1
) -> None:
    """Label what is left of `config`'s stream into `config.output`, a local folder.

    on_frames: told how many more frames are done, those of earlier runs first.
    every: of each shard's units only the first, and each `every`th after it.

    Raises what `run_in_process` raises, and `StorageError` where some of the stream cannot be read:
    what is compared has seen the same frames.
    """

    def note(unit: CommittedUnit, seconds: float) -> None:
        facts = unit.facts
        cost = {
            "unit": unit.unit,
            "frames": facts.labelled,
            "seconds": seconds,
            "passes": facts.passes,
        }
        with (Path(config.output) / COSTS).open("a") as costs:
            costs.write(json.dumps(cost) + "\n")
        on_frames(facts.labelled + sum(facts.rejected.values()))

    def start(done: int, left: int) -> None:
        on_frames(done)

    summary = run_in_process(config, on_start=start, on_unit=note, every=every)
    if summary.left:
        raise StorageError(f"{left_text(summary)}. For example: {summary.left_example}")
