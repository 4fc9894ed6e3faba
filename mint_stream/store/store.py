"""A root on any filesystem that fsspec opens, with the few verbs that a run needs.

`Store` retries what passes by itself (throttling, dropped or slow connections) with exponential
backoff and a bound, and raises `StorageError` for everything else. Commits rest on `create`: an
object that appears whole, once, and is never overwritten (`If-None-Match: *` on S3, an exclusive
hard link on a local disk).
"""

from __future__ import annotations

import io
import logging
import os
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, ClassVar, TypeVar

import stamina

from mint_stream.config import without_queries
from mint_stream.store.address import (
    HTTP,
    links,
    parse,
    protocol_of,
    refuse_credentials,
    split_url,
)
from mint_stream.store.backends import driver_missing, open_backend
from mint_stream.store.errors import (
    COMMITTED_IS_INTACT,
    ObjectChanged,
    ObjectMissing,
    StorageError,
    raised,
    understand,
)
from mint_stream.store.types import Backend, ObjectInfo

__all__ = [
    "PREFLIGHT",
    "ObjectChanged",
    "ObjectInfo",
    "ObjectMissing",
    "RetryPolicy",
    "StorageError",
    "Store",
    "split_url",
]

log = logging.getLogger(__name__)
# Retries are logged here, with the object's name; without a handler stamina's own lines, which have
# none, would go to the terminal.
logging.getLogger("stamina").addHandler(logging.NullHandler())

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How long a store is asked again, in attempts and seconds."""

    attempts: int = 8
    timeout_s: float = 120.0
    """No new attempt is started after this time."""
    wait_initial_s: float = 0.2
    """Before the second attempt; doubled for each later one, with as much again at random."""
    wait_max_s: float = 10.0
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 30.0
    """Longest silence on a connection."""


PREFLIGHT = RetryPolicy(
    attempts=2, timeout_s=8.0, wait_initial_s=0.2, connect_timeout_s=3.0, read_timeout_s=5.0
)
"""For the checks before a run, which are to fail within seconds."""


class Store:
    """Objects below `url`: a local folder, `s3://bucket/prefix`, or any other fsspec address.

    Credentials come from the environment or profile of the process that makes the call and are
    never held: a pickled store is its url and its retry policy. Safe to use from several threads.

    Raises `StorageError` for an address that cannot be opened; every method raises it for what
    the store refuses, and when the bound on retries is reached.
    """

    on_retry: ClassVar[Callable[[str], None] | None] = None
    """Told of every retry of any store in this process, with what is tried: list, read, ..."""

    def __init__(self, url: str | os.PathLike[str], *, retry: RetryPolicy | None = None) -> None:
        self.url = os.fspath(url)
        self.retry = retry or RetryPolicy()
        self.retries = 0
        """Attempts beyond the first since this object was made."""
        self._lock = threading.Lock()
        self._backend: Backend | None = None
        self._process = 0
        refuse_credentials(self.url)

    def __reduce__(self) -> tuple[Callable[..., Store], tuple[str, RetryPolicy]]:
        return _rebuild, (self.url, self.retry)

    def __repr__(self) -> str:
        return f"Store({without_queries(self.url)!r})"

    @property
    def address(self) -> str:
        """The root's address as it opens from anywhere, with what `uri` leaves out."""
        address = parse(self.url)
        return address.at(address.path)

    def uri(self, name: str = "") -> str:
        """The full address of the object `name` (of the root, without one).

        It holds no query, since that may be a signature, and no cache in front.
        """
        backend = self._open()
        root = backend.root_uri
        between = "" if not name or root.endswith("://") else "/"
        return f"{root}{between}{name}{backend.tail}"

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """Every object whose name begins with `prefix`, by name, as the store has it now.

        A root that does not exist has none; a bucket that does not exist is an error.
        """
        try:
            found = self._try("list", prefix, lambda backend: list(backend.list(prefix)))
        except ObjectMissing:
            return []
        return sorted(found, key=lambda info: info.name)

    def holds(self, prefix: str) -> bool:
        """Whether there is any object whose name begins with `prefix`."""
        try:
            first = self._try("list", prefix, lambda b: next(iter(b.list(prefix)), None))
        except ObjectMissing:
            return False
        return first is not None

    def stat(self, name: str) -> ObjectInfo | None:
        """What the store says about the object `name`; None where there is none."""
        try:
            return self._try("look at", name, lambda backend: backend.stat(name))
        except ObjectMissing:
            return None

    def exists(self, name: str) -> bool:
        """Whether there is an object `name`."""
        return self.stat(name) is not None

    def read(self, name: str, *, listed: ObjectInfo | None = None) -> bytes:
        """The whole object `name`. Raises `ObjectMissing` where there is none.

        listed: what was said of it before; `ObjectChanged` is raised for another version.
        """
        if listed is None:
            return self._try("read", name, lambda backend: backend.read(name))
        data, known = self._try("read", name, lambda backend: backend.read_known(name))
        self._check_version(listed, known)
        return data

    def open(
        self, name: str, *, listed: ObjectInfo | None = None, buffer_bytes: int = 4 * 2**20
    ) -> io.BufferedReader:
        """A seekable stream over `name`, read in pieces of `buffer_bytes`, each of them retried.

        Raises `ObjectMissing`, and `ObjectChanged` if the object is overwritten meanwhile, or was
        since it was `listed`.
        """
        return io.BufferedReader(_RetryingFile(self, name, listed), buffer_bytes)

    def write(self, name: str, data: bytes) -> None:
        """Write `data` as `name` as a whole, in place of what was there."""
        self._try("write", name, lambda backend: backend.write(name, data))

    def create(self, name: str, data: bytes) -> bool:
        """Write `data` as `name` only if the name is free.

        True if `name` holds exactly `data` now: written by this call, by an attempt whose answer
        was lost, or by someone else who wrote the same. False if it holds other content.
        """
        try:
            self._try("create", name, lambda backend: backend.create(name, data))
        except FileExistsError:
            return self.read(name) == data
        return True

    def delete(self, name: str) -> None:
        """Delete `name`; nothing happens if there is none."""
        self._try("delete", name, lambda backend: backend.delete(name))

    def check_readable(self) -> None:
        """Raise `StorageError` unless the root can be listed (one small request)."""
        try:
            self._try("list", "", lambda backend: backend.look())
        except ObjectMissing:
            log.debug("%s does not exist yet", self.uri())

    def check_writable(self) -> None:
        """Raise `StorageError` unless objects can be created here, exclusively, and read back.

        Some stores accept a create-only write and overwrite all the same: that is found out here,
        with an object that is deleted again.
        """
        name = f".mint-stream-probe-{secrets.token_hex(8)}"
        self.create(name, b"first")
        try:
            second = self.create(name, b"second")
            if second or self.read(name) != b"first":
                raise StorageError(
                    f"cannot write to {self.uri()}: this store overwrites an object in spite of "
                    "If-None-Match, so two runs could destroy each other's labels; use a version "
                    "of it that honours conditional writes, or another store"
                )
        finally:
            self.delete(name)

    def _open(self) -> Backend:
        # Connections do not survive a fork: each process opens its own.
        with self._lock:
            if self._backend is None or self._process != os.getpid():
                self._backend = self._connect()
                self._process = os.getpid()
            return self._backend

    def _connect(self) -> Backend:
        try:
            return open_backend(self.url, self.retry.connect_timeout_s, self.retry.read_timeout_s)
        except ImportError as error:
            missing = driver_missing(self.url, error)
            raise StorageError(f"cannot open {self.url}: {missing}") from error
        except Exception as error:  # drivers connect here, and raise what they like
            failed = raised(error, "open", self.url, 1, "")
            if not self._may_be_signed:
                raise failed from error
        # Out here, without its cause: that may name the address with its signature.
        raise failed

    @property
    def _may_be_signed(self) -> bool:
        return any(protocol_of(link) in HTTP for link in links(self.url))

    def _try(self, doing: str, name: str, call: Callable[[Backend], T]) -> T:
        """`call`, again while its failures are of the passing kind. `FileExistsError` as it is."""
        backend = self._open()
        attempts = 0

        def passes(error: Exception) -> bool:
            failure = None if isinstance(error, StorageError) else understand(error)
            if failure is None or failure.kind != "passing":
                return False
            log.warning("cannot %s %s yet: %s", doing, self.uri(name), failure.reason)
            return True

        try:
            for attempt in stamina.retry_context(
                on=passes,
                attempts=self.retry.attempts,
                timeout=self.retry.timeout_s,
                wait_initial=self.retry.wait_initial_s,
                wait_max=self.retry.wait_max_s,
                wait_jitter=self.retry.wait_initial_s,
            ):
                with attempt:
                    attempts = attempt.num
                    if attempts > 1:
                        self._count_retry(doing)
                    return call(backend)
        except Exception as error:
            if not isinstance(error, StorageError) and understand(error).kind == "exists":
                raise FileExistsError(self.uri(name)) from error
            ending = "" if self.retry == PREFLIGHT else COMMITTED_IS_INTACT
            failed = raised(error, doing, self.uri(name), attempts, ending)
            if not self._may_be_signed:
                raise failed from error
        raise failed  # as above

    def _check_version(self, listed: ObjectInfo, known: ObjectInfo) -> None:
        if not listed.agrees(known):
            raise ObjectChanged(
                f"cannot read {self.uri(listed.name)}: it was written anew since it was listed "
                f"({listed.size:,} bytes then, {known.size:,} now); list it again"
            )

    def _count_retry(self, doing: str) -> None:
        with self._lock:
            self.retries += 1
        if Store.on_retry is not None:
            Store.on_retry(doing)


class _RetryingFile(io.RawIOBase):
    """An object as a raw, seekable stream; a read that fails in passing is made again."""

    def __init__(self, store: Store, name: str, listed: ObjectInfo | None) -> None:
        self._store = store
        self._name = name
        self._listed = listed
        self._position = 0
        self._file: BinaryIO = store._try("open", name, lambda backend: backend.open(name))
        self._size = self._file.seek(0, io.SEEK_END)
        if listed is not None:
            known = store._try("look at", name, lambda backend: backend.known(name, self._file))
            store._check_version(listed, known)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        def fetch(backend: Backend) -> tuple[bytes, ObjectInfo | None]:
            self._file.seek(self._position)
            data = self._file.read(len(buffer))
            return data, self._listed and backend.known(self._name, self._file)

        if self._position >= self._size:
            return 0
        data, known = self._store._try("read", self._name, fetch)
        if self._listed is not None and known is not None:
            self._store._check_version(self._listed, known)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _rebuild(url: str, retry: RetryPolicy) -> Store:
    return Store(url, retry=retry)
