"""A replica: one labeler, its batches, and the HTTP application in front of it, in one process."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from mint_stream.bank.client import Bank, BankClient
from mint_stream.bank.live import find_live
from mint_stream.labeler.config import LabelerConfig
from mint_stream.labeler.labeler import MintLabeler
from mint_stream.serving.answers import Answers, ReadAnswers, TaughtAnswers
from mint_stream.serving.banks.follower import BankFollower
from mint_stream.serving.banks.live import ActorWatch, KeptBank, find_bank
from mint_stream.serving.banks.reader import BankReader
from mint_stream.serving.banks.watch import BankWatch, CheckpointWatch
from mint_stream.serving.exposure import check_exposure
from mint_stream.serving.gate import AT_ONCE, Gate
from mint_stream.serving.http.api import create_app
from mint_stream.serving.questions import Outcome, Question
from mint_stream.serving.service import Service, ServicePlan
from mint_stream.serving.settings import AUTO, Settings
from mint_stream.store.store import Store


class Replica:
    """What Serve starts `num_replicas` of. Requests reach the labeler through `@serve.batch`."""

    def __init__(
        self, plan: ServicePlan, keeper: DeploymentHandle | None, threads: int | None
    ) -> None:
        # Again: `serve run` builds the application before there is a Serve that listens anywhere.
        check_exposure()
        self._answers = open_answers(plan, threads=threads, keeper=keeper)
        self._model = ThreadPoolExecutor(1, thread_name_prefix="model")
        if threads:
            free = plan.settings.threads is None and plan.settings.adapt == "off"
            choose = settle_threads if free else keep_threads
            # Before another thread sets its own number, which those that are new would take over.
            self._model.submit(choose, self._answers.reader, threads).result()
        # The first batch waits behind this, and the constructor does not: a bank server may be a
        # deployment that starts at the same time.
        self._model.submit(self._answers.start)
        self._gate = Gate(plan.settings.max_batch)
        self._join = serve.batch(
            max_batch_size=plan.settings.max_batch,
            batch_wait_timeout_s=0.0,
            max_concurrent_batches=AT_ONCE,
        )(self._run_batch)
        self._service = Service(
            plan, self._answers, self._ask, min_short_side=min_short_side(self._answers.reader)
        )

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return create_app(self._service, gives_id=False)

    async def _ask(self, question: Question) -> Outcome:
        async with self._gate.place():
            outcome: Outcome = await self._join(question)
            return outcome

    async def _run_batch(self, questions: list[Question]) -> list[Outcome]:
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._model, self._answers.answer, questions)
        finally:
            self._gate.free()


def keep_threads(_: BankReader, threads: int) -> int:
    """Let torch use `threads` in the thread that calls this, whatever others set later."""
    torch.set_num_threads(threads)
    return torch.get_num_threads()


def settle_threads(reader: BankReader, most: int) -> int:
    """Let torch use one thread or `most` in the thread that calls this: gives which.

    For a small model more threads cost more than they bring, and they take the cores that HTTP and
    decoding need: the many must be faster by a third.
    """
    size = reader.adapter.clip.preprocess.size
    images_B3HW, cameras = torch.zeros(8, 3, size, size), [None] * 8

    def seconds(threads: int) -> float:
        torch.set_num_threads(threads)
        took = []
        for _ in range(4):
            started = time.perf_counter()
            reader.read(images_B3HW, cameras, 1)
            took.append(time.perf_counter() - started)
        return min(took)

    chosen = most if most > 1 and seconds(1) > 4 / 3 * seconds(most) else 1
    torch.set_num_threads(chosen)
    return chosen


def min_short_side(reader: BankReader) -> int:
    """Images are reduced to no less than this while they are read, as in the pipeline."""
    adapter = reader.adapter
    return math.ceil(adapter.clip.preprocess.size / math.sqrt(adapter.method.min_crop_area))


def open_answers(
    plan: ServicePlan, *, threads: int | None = None, keeper: DeploymentHandle | None = None
) -> Answers:
    """Load the model and find the bank server, as `plan` says; then `start` what this gives.

    Raises `ConfigError`, or `BankError` where there is no such bank server.
    """
    settings, bank, source = plan.settings, None, ""
    if settings.adapt != "off":
        bank, source = _taught_bank(plan, keeper)
    labeler = MintLabeler(
        LabelerConfig(
            model=settings.clip,
            method=plan.method,
            phrases=plan.classes.phrases,
            templates=plan.classes.templates,
            model_hash=plan.model_hash,
            classes_hash=plan.classes.hash,
            bank_scope=settings.bank_scope,
            seed=settings.seed,
            adapt_budget=settings.adapt_budget,
            top_k=len(plan.classes.names),
            threads=threads,
        ),
        bank=None if bank is None else BankClient(bank),
    )
    reader = BankReader(labeler.adapter, settings.bank_scope)
    name = f"serve-{secrets.token_hex(4)}"
    if bank is not None:
        return TaughtAnswers(
            labeler,
            reader,
            bank,
            name=name,
            source=source,
            shadow=settings.adapt == "shadow",
            max_cameras=settings.max_cameras,
        )
    watches, live = _watches(plan, name)
    follower = BankFollower(watches, reader, poll_s=settings.bank_poll_s)
    return ReadAnswers(reader, follower, wants=live.want if live else None)


def _watches(plan: ServicePlan, name: str) -> tuple[Sequence[BankWatch], ActorWatch | None]:
    settings, watches = plan.settings, list[BankWatch]()
    live = None
    if settings.bank_actor:
        live = ActorWatch(partial(_bank_server, settings), reader=name, scope=settings.bank_scope)
        watches.append(live)
    if settings.bank_root is not None:
        watches.append(
            CheckpointWatch(
                Store(settings.bank_root),
                model_hash=plan.model_hash,
                method=plan.method,
                width=plan.width,
            )
        )
    return watches, live


def _bank_server(settings: Settings) -> tuple[str, str]:
    """Name and namespace of the bank server that the settings mean."""
    if settings.bank_actor == AUTO and settings.bank_root is not None:
        return find_live(Store(settings.bank_root))
    return settings.bank_actor or "", settings.bank_namespace


def _taught_bank(plan: ServicePlan, keeper: DeploymentHandle | None) -> tuple[Bank, str]:
    settings = plan.settings
    if settings.bank_actor:
        actor, namespace = _bank_server(settings)
        return find_bank(actor, namespace), f"live bank server {actor}"
    assert keeper is not None, "build_app starts one for every bank that requests teach"
    kept: Any = KeptBank(keeper)
    return kept, f"bank server of this service, in {settings.bank}"
