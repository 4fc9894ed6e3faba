"""One preset over a stream in this process: the pipeline's own parts, without its engine.

Units come in the order of the stream, one labeler adapts, and what it writes is an output as the
pipeline writes it, so a run that was cut off goes on where it stopped. Beside it stands
`costs.jsonl`, a line for each unit: Ray's stages report their times to the driver alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mint_stream.bank.client import BankClient
from mint_stream.bank.server import BankServer
from mint_stream.clip.model import pick_device
from mint_stream.config import RunConfig
from mint_stream.evaluation.costs import COSTS
from mint_stream.input.grid import unit_start
from mint_stream.input.shards import count_frames
from mint_stream.input.units import Undisturbed, read_shard
from mint_stream.labeler.labeler import MintLabeler
from mint_stream.output.commit import commit_unit
from mint_stream.output.done import load_done
from mint_stream.output.lease import Lease
from mint_stream.pipeline.parts import labeler_config, read_config, run_bank
from mint_stream.pipeline.plan import plan
from mint_stream.pipeline.preflight import Prepared, prepare


def run_preset(
    config: RunConfig, on_frames: Callable[[int], None] = lambda frames: None, *, every: int = 1
) -> None:
    """Label what is left of `config`'s stream into `config.output`, a local folder.

    on_frames: told how many more frames are done, those of earlier runs first.
    every: of each shard's units only the first, and each `every`th after it.

    Raises what `prepare` raises, `LeaseHeld`, and `StorageError`.
    """
    prepared = prepare(config)
    lease = Lease(prepared.store)
    lease.acquire()
    try:
        done = load_done(prepared.store, prepared.unit_size)
        on_frames(done.frames)
        left = plan(prepared.shards, done, count_frames, config.limit)
        if left:
            _label(config, prepared, left, on_frames, every)
    finally:
        lease.release()


def _label(
    config: RunConfig,
    prepared: Prepared,
    left: list[dict[str, Any]],
    on_frames: Callable[[int], None],
    every: int,
) -> None:
    gpus = float(pick_device(config.model.device).type == "cuda")
    bank = _bank_server(config, prepared) if config.method.adapts else None
    client = None if bank is None else BankClient(bank)
    labeler = MintLabeler(labeler_config(config, prepared, gpus), client)
    reading = read_config(config, prepared)
    try:
        with (Path(config.output) / COSTS).open("a") as costs:
            for shard in left:
                for unit in read_shard(shard, reading, Undisturbed()):
                    if unit_start(unit["unit"]) // prepared.unit_size % every:
                        continue
                    started = time.perf_counter()
                    labelled = labeler(unit)
                    seconds = time.perf_counter() - started
                    commit_unit(labelled, prepared.store, bank)
                    costs.write(json.dumps(_cost(labelled, seconds)) + "\n")
                    costs.flush()
                    rejected = sum(json.loads(labelled["rejected"]).values())
                    on_frames(labelled["labelled"] + rejected)
    finally:
        if bank is not None:
            bank.finish()


def _cost(labelled: dict[str, Any], seconds: float) -> dict[str, Any]:
    unit, passes, frames = (labelled[name] for name in ("unit", "passes", "labelled"))
    return {"unit": unit, "frames": frames, "seconds": seconds, "passes": passes}


def _bank_server(config: RunConfig, prepared: Prepared) -> BankServer:
    server = BankServer(run_bank(config, prepared))
    server.start_clock()
    return server
