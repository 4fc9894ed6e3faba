"""Bodies that do not come: they take no place from those that do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import image_files
import pytest
import serving_world as world

from mint_stream.serving.http import arrivals as module
from mint_stream.serving.http.api import create_app
from mint_stream.serving.http.arrivals import MOST_ARRIVING, Arrivals
from mint_stream.serving.http.problems import Problem
from mint_stream.serving.service import ServicePlan

HOURS = 3600.0


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(in_time())


class Body:
    """One that is under way, until it is complete."""

    def __init__(self, arrivals: Arrivals) -> None:
        self.begun, self.complete = asyncio.Event(), asyncio.Event()
        self.task = asyncio.create_task(self._arrive(arrivals))

    async def _arrive(self, arrivals: Arrivals) -> None:
        async with arrivals.place():
            self.begun.set()
            await self.complete.wait()


@pytest.mark.parametrize("others", [1, 2, 5])
def test_as_many_of_the_oldest_make_room_as_others_wait_and_no_more(
    others: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPARED_S", 0.01)

    async def scenario() -> None:
        arrivals = Arrivals(3, HOURS)
        never = [Body(arrivals) for _ in range(3)]
        for body in never:
            await body.begun.wait()
        good = [Body(arrivals) for _ in range(others)]
        for body in good:
            body.complete.set()
            await body.task
        gone = [body.task for body in never if body.task.done()]
        assert gone == [body.task for body in never[: len(gone)]]
        assert 1 <= len(gone) <= others
        for task in gone:
            with pytest.raises(Problem, match="others waited") as raised:
                task.result()
            assert raised.value.kind == "too-slow"
        for body in never[len(gone) :]:
            body.complete.set()
            await body.task

    play(scenario)


def test_those_who_are_let_in_while_others_wait_are_hurried_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SPARED_S", 0.01)

    async def scenario() -> None:
        arrivals = Arrivals(2, HOURS)
        never = [Body(arrivals) for _ in range(9)]
        await asyncio.sleep(0)
        good = Body(arrivals)
        good.complete.set()
        await good.task
        assert sum(body.task.done() for body in never) >= 8
        await asyncio.gather(*(body.task for body in never[:8]), return_exceptions=True)
        assert not never[8].task.done()
        never[8].complete.set()
        await never[8].task

    play(scenario)


def test_a_body_has_its_time_and_no_more(limited: ServicePlan) -> None:
    async def scenario() -> None:
        plan = world.with_settings(limited, body_timeout_s=0.05)
        service = world.service(plan, world.Direct(plan))
        status, body = await post_without_end(create_app(service))
        assert status == 408
        assert body["type"].endswith(":too-slow")
        assert body["remedy"]
        assert service.held == 0

    play(scenario)


async def post_without_end(app: Any) -> tuple[int, Any]:
    """POST the beginning of an image, of which the rest never comes: status and problem."""
    pieces, sent = [image_files.jpeg()[:50]], list[Any]()

    async def receive() -> dict[str, Any]:
        if not pieces:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": pieces.pop(), "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
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
    return sent[0]["status"], json.loads(b"".join(part.get("body", b"") for part in sent[1:]))


def test_more_unfinished_bodies_than_there_are_places_stop_no_good_request(
    limited: ServicePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPARED_S", 0.01)

    async def scenario() -> None:
        plan = world.with_settings(limited, body_timeout_s=HOURS, timeout_s=HOURS)
        app = create_app(world.service(plan, world.Direct(plan)))
        slow = [asyncio.create_task(post_without_end(app)) for _ in range(MOST_ARRIVING + 38)]
        status, _, _ = await world.ask_app(app, image_files.jpeg())
        assert status == 200
        cut_off = [await task for task in slow[:38]]
        assert {status for status, _ in cut_off} == {408}
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)

    play(scenario)
