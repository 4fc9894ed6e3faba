"""In front of Serve's proxy: headers that it could not read, and bodies that nobody may send."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from mint_stream.serving.http.front import LABELLING, Front, middlewares
from mint_stream.serving.http.token import TOKEN_VARIABLE

Headers = list[tuple[bytes, bytes]]


async def read_all(request: Request) -> JSONResponse:
    """Reads every header as UTF-8, as Serve's proxy reads some."""
    return JSONResponse({name.decode(): value.decode() for name, value in request.headers.raw})


def client() -> TestClient:
    [front] = middlewares()
    routes = [Route("/{path:path}", read_all, methods=["GET", "POST"])]
    return TestClient(front.cls(Starlette(routes=routes)))  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        (b"x-request-id", b"caf\xe9", False),
        (b"x-request-id", b"caf\xc3\xa9", False),
        (b"x-request-id", b"order-7.1", True),
        (b"x-session-id", b"\xff", False),
        (b"serve_multiplexed_model_id", b"\xe9", False),
        (b"x-request-timeout-seconds", b"\xe9", False),
        (b"user-agent", b"Kamera S\xfcd", False),
        (b"user-agent", "Kamera Süd".encode(), True),
        (b"authorization", b"Bearer \xe9", False),
    ],
)
def test_a_header_that_is_no_text_is_left_out_and_the_request_goes_on(
    name: bytes, value: bytes, kept: bool
) -> None:
    answer = client().get("/healthz", headers=[(name, value)])
    assert answer.status_code == 200
    assert (answer.json().get(name.decode()) == value.decode("utf-8", "replace")) is kept


def asked(headers: Headers, path: str) -> tuple[int, int]:
    """POST with a body: status, and pieces of the body that were asked for before the answer."""
    pieces, status = 0, 0

    async def receive() -> dict[str, Any]:
        nonlocal pieces
        pieces += 1
        return {"type": "http.request", "body": b"x", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    asyncio.run(Front(application)(scope, receive, send))
    return status, pieces


@pytest.mark.parametrize(
    "path", [f"{prefix}{path}" for prefix in ("", "/other") for path in LABELLING]
)
@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"Bearer wrong")],
        [(b"authorization", b"Bearer s3cret\xe9")],
        [(b"authorization", b"Basic s3cret")],
    ],
)
def test_without_a_token_nothing_of_the_body_is_read(
    path: str, headers: Headers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "s3cret")
    assert asked(headers, path) == (401, 0)
    assert asked([*headers, (b"authorization", b"bearer s3cret")][-1:], path) == (200, 1)
    assert asked(headers, "/somebody/else") == (200, 1)
    monkeypatch.delenv(TOKEN_VARIABLE)
    assert asked(headers, path) == (200, 1)
