"""A driver of the real pipeline, some of whose processes will be killed: killable_run.py CONFIG.

CONFIG: JSON with input, output, the assets' folder, and settings of the run.
"""

from __future__ import annotations

import functools
import json
import sys
from dataclasses import replace
from pathlib import Path

import stages
from kills import plan
from tiny import Assets

from mint_stream import dataset, pipeline


def main() -> None:
    config = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(config["assets"])
    assets = Assets(folder / "clip", folder / "labels.txt")
    dataset.LabelUnits = stages.KillingLabelUnits  # type: ignore[misc]
    dataset.read_units = stages.killing_read_units
    # Checkpoints go on soon after a restart: on one machine no commit is under way for long.
    pipeline.bank_config = functools.partial(pipeline.bank_config, settle_s=1.0)  # type: ignore
    run = pipeline.prepare_run(assets.config(config["input"], config["output"], **config["run"]))
    store = stages.KillingStore(run.prepared.store.url, retry=run.prepared.store.retry)
    run.prepared = replace(run.prepared, store=store)
    plan().register("driver")
    print(run.execute(), flush=True)


if __name__ == "__main__":
    main()
