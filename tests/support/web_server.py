"""Web servers on loopback: a plain one, as `python -m http.server`, and one like a store's."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Plain(SimpleHTTPRequestHandler):
    """Folders as pages, whole files only."""

    def log_message(self, *_: Any) -> None:
        pass


class Signed(Plain):
    """Parts of files with ETags, no pages, no HEAD, and nothing without the signature."""

    signature = ""

    def do_HEAD(self) -> None:
        self.send_error(403)

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        file = Path(self.translate_path(path))
        if self.signature and query != self.signature:
            self.send_error(403)
            return
        if not file.is_file():
            self.send_error(404)
            return
        data, etag = file.read_bytes(), f'"{os.stat(file).st_mtime_ns:x}"'
        if self.headers.get("If-Match", etag) != etag:
            self.send_error(412)
            return
        first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last) + 1] if first else data
        if first and not part:
            self.send_error(416)
            return
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", etag)
        self.end_headers()
        self.wfile.write(part)


@contextlib.contextmanager
def web_server(folder: Path, handler: type[Plain] = Plain, signature: str = "") -> Iterator[str]:
    """The address of a server of `folder`; each request must carry `signature` as its query."""
    kind = type("Handler", (handler,), {"signature": signature})
    make = functools.partial(kind, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), make) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
