"""A service in this process for the tests: no Ray, batches of whatever is asked at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import tiny
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from mint_stream.bank import checkpoint
from mint_stream.config import PRESETS, as_dict
from mint_stream.input.images import decode
from mint_stream.input.units import DecodedFrame, Unit
from mint_stream.labeler.config import LabelerConfig
from mint_stream.labeler.labeler import MintLabeler
from mint_stream.method import bank_state
from mint_stream.method.bank_state import Banks, BankState
from mint_stream.serving.application import plan_service
from mint_stream.serving.http.api import create_app
from mint_stream.serving.questions import Outcome, Question
from mint_stream.serving.replica import min_short_side, open_answers
from mint_stream.serving.service import Service, ServicePlan
from mint_stream.serving.settings import read_settings
from mint_stream.store.store import Store

JPEG = {"Content-Type": "image/jpeg"}


def plan(assets: tiny.Assets, **arguments: Any) -> ServicePlan:
    """A plan for the tiny CLIP, in float32 on the CPU."""
    given = {"model": str(assets.model), "labels": str(assets.labels), "device": "cpu"}
    given |= {"preset": "paper"}  # reading its bank takes more: a prompt for each image
    return plan_service(read_settings({**given, "dtype": "float32", "threads": 1, **arguments}))


class Direct:
    """Asks the labeler for one question after the other, as `@serve.batch` would for many."""

    def __init__(self, service_plan: ServicePlan) -> None:
        self.answers = open_answers(service_plan)
        self.answers.start()
        self.batches: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._model = ThreadPoolExecutor(1)

    async def ask(self, question: Question) -> Outcome:
        await self.gate.wait()
        self.batches.append(1)
        loop = asyncio.get_running_loop()
        return (await loop.run_in_executor(self._model, self.answers.answer, [question]))[0]


@contextmanager
def client(service_plan: ServicePlan) -> Iterator[TestClient]:
    """An HTTP client of a service in this process."""
    with serving(service_plan) as (found, _):
        yield found


@contextmanager
def serving(service_plan: ServicePlan) -> Iterator[tuple[TestClient, Service]]:
    """The client and the service behind it."""
    made = service(service_plan, Direct(service_plan))
    with TestClient(create_app(made), raise_server_exceptions=False) as found:
        yield found, made


def service(service_plan: ServicePlan, direct: Direct) -> Service:
    """A service that asks `direct`."""
    shortest = min_short_side(direct.answers.reader)
    return Service(service_plan, direct.answers, direct.ask, min_short_side=shortest)


def with_settings(service_plan: ServicePlan, **changes: Any) -> ServicePlan:
    """`service_plan` with other settings."""
    return replace(service_plan, settings=service_plan.settings.model_copy(update=changes))


async def ask(
    made: Service, image: bytes, *, body_may_be_read: bool = True
) -> tuple[int, dict[str, str], bytes]:
    """POST `image` as ASGI, in the running loop: status, headers, body."""
    return await ask_app(create_app(made), image, body_may_be_read=body_may_be_read)


async def ask_app(
    app: ASGIApp, image: bytes, *, body_may_be_read: bool = True
) -> tuple[int, dict[str, str], bytes]:
    """As `ask`, of an application that there is."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        assert body_may_be_read, "the body was read"
        return {"type": "http.request", "body": image, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/label",
        "raw_path": b"/v1/label",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"image/jpeg")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    await app(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:])


def identity(service_plan: ServicePlan, **changes: Any) -> dict[str, Any]:
    """What a bank that this service accepts belongs to."""
    settings = service_plan.settings
    whole = {"model": service_plan.model_hash, "method": as_dict(settings.method)}
    return {**whole, "scope": "shared", "seed": 0, **changes}


def taught(service_plan: ServicePlan, *, seed: int, scopes: tuple[str, ...] = ("shared",)) -> Banks:
    """Banks as a run might have left them after `seed` merges, other ones for each seed."""
    method = PRESETS[service_plan.settings.preset]
    start = bank_state.initial_state(
        entries=method.bank_size, prompt_rows=method.prompt_rows, width=service_plan.width, seed=0
    )
    states = {}
    for number, scope in enumerate(scopes):
        other = bank_state.initial_state(
            entries=method.bank_size,
            prompt_rows=method.prompt_rows,
            width=service_plan.width,
            seed=1000 * seed + number,
        )
        usage = start.usage_K + seed + 1
        states[scope] = bank_state.frozen(
            BankState(other.keys_KD, 3 * other.prompts_KPD, usage, usage.copy())
        )
    return Banks(start, states, seq=seed)


def save(root: str | Path, service_plan: ServicePlan, banks: Banks, **changes: Any) -> str:
    """Write `banks` as the newest checkpoint below `root`; gives its name."""
    done = checkpoint.save(
        Store(root),
        banks,
        covered=(),
        number=banks.seq,
        identity=identity(service_plan, **changes),
    )
    return done.name


def labeler(service_plan: ServicePlan) -> MintLabeler:
    """The labeler that an offline run with these settings has, without a bank."""
    settings = service_plan.settings
    config = LabelerConfig(
        model=settings.clip,
        method=settings.method,
        phrases=service_plan.classes.phrases,
        templates=service_plan.classes.templates,
        model_hash=service_plan.model_hash,
        classes_hash=service_plan.classes.hash,
        top_k=5,
    )
    return MintLabeler(config, None)


def unit(name: str, numbers: list[int]) -> Unit:
    """A unit of images as the pipeline hands it to the labeler."""
    frames = []
    for number in numbers:
        image = decode(tiny.png(number))
        frames.append(
            DecodedFrame(
                frame=f"frame-{number}",
                member=str(number),
                camera=None,
                timestamp=None,
                width=image.width,
                height=image.height,
                pixels_height=image.rgb_HW3.shape[0],
                pixels_width=image.rgb_HW3.shape[1],
                pixels=image.rgb_HW3.tobytes(),
            )
        )
    return Unit(unit=name, shard_id=name, shard="shard", frames=tuple(frames), rejects=())
