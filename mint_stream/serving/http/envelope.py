"""Around every request: an id, one line in the log, and no error that leaves as a stack trace."""

from __future__ import annotations

import logging
import re
import secrets
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mint_stream.serving.http.problems import Problem

log = logging.getLogger("ray.serve.mint_stream")

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class Envelope:
    """Wraps an ASGI app. The id is the client's `X-Request-ID` where that is a plain word.

    gives_id: whether the answer's `X-Request-ID` is set here; Serve's proxy does it itself.
    """

    def __init__(self, app: ASGIApp, *, gives_id: bool = True) -> None:
        self._app = app
        self._gives_id = gives_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0
        request_id = own_id(scope) or secrets.token_hex(8)
        state = scope.setdefault("state", {})
        state["request_id"], state["started"] = request_id, started

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message["headers"], (b"x-content-type-options", b"nosniff")]
                if self._gives_id:
                    headers.append((b"x-request-id", request_id.encode()))
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            # Only a kind and an id leave; what happened is here.
            log.exception("request=%s failed", request_id)
            if status == 0:
                problem = Problem(
                    "internal",
                    "the service failed on this request",
                    "Try again; if it lasts, give the request id to whoever runs the service.",
                )
                await problem.response(request_id)(scope, receive, send_with_headers)
        finally:
            log.info(
                "request=%s %s %s status=%d images=%d ms=%.1f",
                request_id,
                scope["method"],
                scope["path"][:200],
                status,
                state.get("images", 0),
                (time.perf_counter() - started) * 1e3,
            )


def own_id(scope: Scope) -> str | None:
    """The request's `X-Request-ID`, if it brings one that is a plain word."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ID.fullmatch(text := value.decode("latin-1")):
            return text
    return None
