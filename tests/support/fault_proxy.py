"""A proxy in front of an S3 server that goes wrong on request, and remembers what passed.

    with FaultProxy(server.port) as proxy:
        proxy.inject("slow_down", method="PUT", path="labels/", times=2)

Requests are signed for the host they are sent to, so they go on with their headers unchanged.

Faults, for requests whose method and path match:
    slow_down     answered 503 SlowDown, not forwarded
    forbidden     answered 403 AccessDenied, not forwarded
    drop_before   connection closed, not forwarded
    drop_after    forwarded; connection closed in place of the answer (a PUT whose answer was lost)
    cut_body      forwarded; connection closed in the middle of the answer's body
    hold_before   not forwarded until `release()`
    hold_after    forwarded; not answered until `release()`
    hide_conflict forwarded; a 412 becomes a 200 (a store that ignores If-None-Match)
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Literal
from urllib.parse import unquote

Kind = Literal[
    "slow_down",
    "forbidden",
    "drop_before",
    "drop_after",
    "cut_body",
    "hold_before",
    "hold_after",
    "hide_conflict",
]
_OF_THE_CONNECTION = {"connection", "transfer-encoding", "content-length", "expect"}
HOLD_AT_MOST_S = 120.0
_ERRORS = {"slow_down": (503, "SlowDown"), "forbidden": (403, "AccessDenied")}


@dataclass
class Fault:
    """What goes wrong, for which requests, and how often it still will."""

    kind: Kind
    method: str | None
    path: str
    times: int
    hit: int = 0
    """Requests that it struck."""
    reached: threading.Event = field(default_factory=threading.Event)
    """Set when the first request was struck (for holds: is being held)."""
    _released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        """Let held requests go on."""
        self._released.set()

    def hold(self) -> None:
        self._released.wait(HOLD_AT_MOST_S)


@dataclass(frozen=True)
class Passed:
    """One request that arrived: what it asked for and what it was answered (None: nothing)."""

    method: str
    path: str
    status: int | None
    fault: Kind | None


class FaultProxy:
    """Listens on a loopback port of its own and forwards to `upstream_port`."""

    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        self.requests: list[Passed] = []
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def endpoint(self) -> str:
        """What AWS_ENDPOINT_URL is to be."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def inject(
        self, kind: Kind, *, method: str | None = None, path: str = "", times: int = 1
    ) -> Fault:
        """Strike the next `times` requests with that method whose path contains `path`."""
        fault = Fault(kind, method, path, times)
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """No more faults; held requests go on; nothing is remembered."""
        with self._lock:
            faults, self._faults = self._faults, []
            self.requests.clear()
        for fault in faults:
            fault.release()

    def passed(self, method: str, path: str = "") -> list[Passed]:
        """The requests so far with that method whose path contains `path`."""
        with self._lock:
            return [item for item in self.requests if item.method == method and path in item.path]

    def strike(self, method: str, path: str) -> Fault | None:
        """The fault that this request meets, if any."""
        with self._lock:
            for fault in self._faults:
                matches = fault.method in (None, method) and fault.path in path
                if matches and fault.hit < fault.times:
                    fault.hit += 1
                    return fault
        return None

    def record(self, passed: Passed) -> None:
        """Remember a request."""
        with self._lock:
            self.requests.append(passed)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.clear()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # clients keep idle connections open
    proxy: FaultProxy

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away, or was killed, is what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 2**16  # headers and body in one go; flushed after each request
    server: _Server

    def do_any(self) -> None:
        proxy = self.server.proxy
        path = unquote(self.path)
        body = self._body()
        fault = proxy.strike(self.command, path)
        kind = fault.kind if fault else None
        status: int | None = None
        try:
            if fault is not None and kind != "hold_after":
                fault.reached.set()
            if kind in _ERRORS:
                status, code = _ERRORS[str(kind)]
                self._answer_error(status, code)
            elif kind == "drop_before":
                self._drop()
            else:
                if fault is not None and kind == "hold_before":
                    fault.hold()
                status = self._forward(body, fault)
        finally:
            proxy.record(Passed(self.command, path, status, kind))

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_any

    def _body(self) -> bytes:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
            self.wfile.flush()
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(iter(self._chunk, b""))
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def handle_expect_100(self) -> bool:
        return True  # answered in _body, once the request is known to be wanted

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline().split(b";")[0], 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    def _forward(self, body: bytes, fault: Fault | None) -> int | None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.proxy.upstream_port)
        try:
            # The client's own Host and Accept-Encoding go on: they may be part of what it signed.
            connection.putrequest(self.command, self.path, True, True)
            for name, value in self.headers.items():
                if name.lower() not in _OF_THE_CONNECTION:
                    connection.putheader(name, value)
            if body or self.command in ("PUT", "POST"):
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            response = connection.getresponse()
            data = response.read()
            headers = response.getheaders()
        finally:
            connection.close()
        kind = fault.kind if fault else None
        if fault is not None and kind == "hold_after":
            fault.reached.set()
            fault.hold()
        if kind == "drop_after":
            self._drop()
            return None
        status = response.status
        if kind == "hide_conflict" and status == 412:
            status, data = 200, b""
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _OF_THE_CONNECTION:
                self.send_header(name, value)
        length = response.getheader("Content-Length") if self.command == "HEAD" else len(data)
        if length is not None and status != 204:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if kind == "cut_body":
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self._drop()
        elif self.command != "HEAD":
            self.wfile.write(data)
        return status

    def _answer_error(self, status: int, code: str) -> None:
        text = f"<Error><Code>{code}</Code><Message>injected by the test</Message></Error>"
        data = b"" if self.command == "HEAD" else text.encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _drop(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are recorded, not logged."""
