"""One driver at a time on an output: a lease that its holder keeps alive with a heartbeat.

The lease keeps two people from wasting each other's work. It is not what makes results right:
commits are create-only, so that even two drivers at once label every frame exactly once.

No clock is compared between machines. A holder is alive if its heartbeat changes while one looks.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable
from typing import Any, Protocol

import psutil

from mint_stream.store.errors import ObjectMissing

NAME = "lease.json"

log = logging.getLogger(__name__)


class LeaseStore(Protocol):
    """What a lease needs of a store."""

    def read(self, name: str) -> bytes: ...
    def write(self, name: str, data: bytes) -> None: ...
    def create(self, name: str, data: bytes) -> bool: ...
    def delete(self, name: str) -> None: ...


class LeaseHeld(RuntimeError):
    """Another driver is alive on this output."""


class Lease:
    """`acquire`, then `release`; in between a thread rewrites the lease every `beat_s` seconds.

    Args:
        on_lost: called once, from that thread, if another driver has taken the lease over.
    """

    def __init__(
        self, store: LeaseStore, *, beat_s: float = 3.0, on_lost: Callable[[], None] | None = None
    ) -> None:
        self._store, self._beat_s, self._on_lost = store, beat_s, on_lost
        self._token = secrets.token_hex(8)
        self._beats = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, name="lease", daemon=True)

    def acquire(self) -> None:
        """Take the lease, from a holder that has died if need be.

        A holder on this machine is known dead at once by its process id; one elsewhere after three
        heartbeats without a change.

        Raises:
            LeaseHeld: its holder is alive.
        """
        if not self._store.create(NAME, self._content()):
            holder = self._holder()
            if holder is not None and not _died_here(holder) and self._still_beats(holder):
                raise LeaseHeld(
                    f"another run is labelling into this output (process {holder.get('pid')} on "
                    f"{holder.get('host')}): wait for it or stop it, or choose another --output"
                )
            self._store.write(NAME, self._content())
            if (self._holder() or {}).get("token") != self._token:
                raise LeaseHeld("another run took this output over at the same moment: run again")
        self._thread.start()

    def release(self) -> None:
        """Stop the heartbeat and give the lease up, if it is still ours."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=3 * self._beat_s)
        try:
            if (self._holder() or {}).get("token") == self._token:
                self._store.delete(NAME)
        except OSError as error:
            # Its holder will be found dead: nothing depends on this.
            log.warning("the lease could not be given up: %s", error)

    def _content(self) -> bytes:
        me = psutil.Process()
        content = {
            "token": self._token,
            "host": _host(),
            "pid": me.pid,
            "process_started": me.create_time(),
            "beat": self._beats,
        }
        return json.dumps(content).encode()

    def _holder(self) -> dict[str, Any] | None:
        try:
            holder: dict[str, Any] = json.loads(self._store.read(NAME))
        except (ObjectMissing, ValueError):
            return None
        return holder

    def _still_beats(self, holder: dict[str, Any]) -> bool:
        log.warning(
            "the output is leased by process %s on %s: watching its heartbeat for %.0f s",
            *(holder.get("pid"), holder.get("host"), 3 * self._beat_s),
        )
        for _ in range(3):
            self._stop.wait(self._beat_s)
            now = self._holder()
            if now is None:
                return False
            if now != holder:
                return True
        return False

    def _keep_alive(self) -> None:
        while not self._stop.wait(self._beat_s):
            self._beats += 1
            try:
                holder = self._holder()
                if holder is not None and holder.get("token") != self._token:
                    log.error("another run has taken this output over: stopping")
                    if self._on_lost:
                        self._on_lost()
                    return
                self._store.write(NAME, self._content())
            except OSError as error:
                # A store that is away for a while must not end the run: commits have their own
                # retries, and they are create-only.
                log.warning("heartbeat failed, trying again: %s", error)


def _host() -> str:
    """This machine, or this container of it: where a process id means the same process."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _died_here(holder: dict[str, Any]) -> bool:
    if holder.get("host") != _host() or "pid" not in holder:
        return False
    try:
        started = psutil.Process(holder["pid"]).create_time()
    except psutil.NoSuchProcess:
        return True
    return bool(abs(started - holder.get("process_started", started)) > 1)
