"""In Serve's proxy, in front of every replica: what no replica should have to see.

    export RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=mint_stream.serving.http.front:middlewares

where Ray is started, beside `MINT_STREAM_TOKEN`. Without it the service answers all the same, but
Serve's proxy itself answers 500 to a header that it reads and cannot decode, and takes in the body
of a request without a token while that waits for a replica.
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from mint_stream.serving.http.envelope import Envelope, own_id
from mint_stream.serving.http.token import Token

LABELLING = ("/v1/label", "/v1/labels:batch")
"""The addresses that take bodies, below whatever prefix the application has."""


def middlewares() -> list[Middleware]:
    """What Serve's proxy wraps its application in; called once in each proxy."""
    return [Middleware(Front)]


class Front:
    """Drops headers that Serve could not read; refuses whoever has no token before it reads on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app, self._token = app, Token()
        self._refusing = Envelope(self._refuse)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "headers" in scope:
            plain = own_id(scope) is not None
            scope["headers"] = [
                (name, value)
                for name, value in scope["headers"]
                if _is_text(value) and (plain or name != b"x-request-id")
            ]
        asks = scope["type"] == "http" and scope["path"].endswith(LABELLING)
        refused = asks and not self._token.admits(_bearer(scope))
        await (self._refusing if refused else self._app)(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = self._token.refusal(_bearer(scope))
        await problem.response(scope["state"]["request_id"])(scope, receive, send)


def _is_text(value: bytes) -> bool:
    """Whether it is UTF-8, as which Serve reads some headers."""
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _bearer(scope: Scope) -> str:
    """The token that was sent; "" without one."""
    for name, value in scope["headers"]:
        scheme, _, given = value.decode("latin-1").partition(" ")
        if name == b"authorization" and scheme.lower() == "bearer":
            return given
    return ""
