"""The pipeline with a plan of kills: its parts are replaced by those that carry the plan."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import ray
from kills import Plan
from stages import KillingBank, KillingControl, KillingStore, killing_read_units

from mint_stream.config import RunConfig
from mint_stream.pipeline import dataset
from mint_stream.pipeline import run as pipeline
from mint_stream.pipeline.bank_actor import start_bank_server
from mint_stream.pipeline.control import RunControl
from mint_stream.pipeline.parts import run_bank
from mint_stream.pipeline.summary import RunSummary


def execute(
    config: RunConfig, plan: Plan, read_units: Callable[..., object] = killing_read_units
) -> RunSummary:
    """Prepare and execute a run in this process, with the kills of `plan`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "read_units", read_units)
        patch.setattr(pipeline, "start_bank_server", functools.partial(_start_bank, plan))
        patch.setattr(pipeline, "start_run_control", functools.partial(_start_control, plan))
        # Checkpoints go on soon after a restart: on one machine no commit is under way for long.
        patch.setattr(pipeline, "run_bank", lambda *run: replace(run_bank(*run), settle_s=1.0))
        run = pipeline.prepare_run(config)
        store = run.prepared.store
        run.prepared = replace(run.prepared, store=KillingStore(store.url, store.retry, plan))
        return run.execute()


def _start_bank(plan: Plan, *arguments: Any, **settings: Any) -> KillingBank:
    bank = start_bank_server(*arguments, **settings)
    return KillingBank(bank.server, bank.patience_s, plan)


def _start_control(plan: Plan) -> KillingControl:
    class Registered(RunControl):
        def __init__(self) -> None:
            super().__init__()
            plan.register("worker")

    actor = ray.remote(Registered).options(num_cpus=0, max_restarts=-1, max_task_retries=-1)
    return KillingControl(actor.remote(), plan=plan)
