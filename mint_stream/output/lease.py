"""One driver at a time on an output: a lease that its holder keeps alive with a heartbeat.

The lease keeps two people from wasting each other's work. It is not what makes results right:
commits are create-only, so that even two drivers at once label every frame exactly once.

No clock is compared between machines, and no machine is told by its name, which two may share. A
holder is alive if its heartbeat changes while one looks; that it is dead is known sooner where its
process ran under this very kernel since its last start. What stands in the lease is not trusted: it
may have been written by anything.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

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

        A holder that ran under this kernel is known dead at once by its process id; any other one,
        and a lease that is damaged, after three heartbeats without a change.

        Raises:
            LeaseHeld: its holder is alive.
        """
        if not self._store.create(NAME, self._content()):
            found = self._read()
            if found is not None:
                self._take_over(found)
            self._store.write(NAME, self._content())
            if not self._is_ours(self._read()):
                raise LeaseHeld("another run took this output over at the same moment: run again")
        self._thread.start()

    def release(self) -> None:
        """Stop the heartbeat and give the lease up, if it is still ours."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=3 * self._beat_s)
        try:
            if self._is_ours(self._read()):
                self._store.delete(NAME)
        except OSError as error:
            # Its holder will be found dead: nothing depends on this.
            log.warning("the lease could not be given up: %s", error)

    def _take_over(self, found: bytes) -> None:
        """Raise `LeaseHeld` unless whoever wrote `found` is dead."""
        holder = Holder.parse(found)
        if holder is None:
            if self._still_changes(found, f"{NAME} holds no lease of this program"):
                raise LeaseHeld(
                    f"something keeps writing {NAME} in this output, and not as this program does: "
                    f"stop it, then delete {NAME}, or choose another --output"
                )
            log.warning("%s was damaged and unchanged for a while: it is written anew", NAME)
        elif not holder.died_here() and self._still_changes(found, f"leased by {holder}"):
            raise LeaseHeld(
                f"another run is labelling into this output ({holder}): wait for it or stop it, or "
                "choose another --output"
            )

    def _content(self) -> bytes:
        content = {
            "token": self._token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "machine": _machine(),
            "started": _started(os.getpid()),
            "beat": self._beats,
        }
        return json.dumps(content).encode()

    def _read(self) -> bytes | None:
        try:
            return self._store.read(NAME)
        except ObjectMissing:
            return None

    def _is_ours(self, found: bytes | None) -> bool:
        holder = None if found is None else Holder.parse(found)
        return holder is not None and holder.token == self._token

    def _still_changes(self, found: bytes, what: str) -> bool:
        log.warning("the output: %s; watching it for %.0f s", what, 3 * self._beat_s)
        for _ in range(3):
            self._stop.wait(self._beat_s)
            now = self._read()
            if now is None:
                return False
            if now != found:
                return True
        return False

    def _keep_alive(self) -> None:
        while not self._stop.wait(self._beat_s):
            self._beats += 1
            try:
                found = self._read()
                holder = None if found is None else Holder.parse(found)
                if holder is not None and holder.token != self._token:
                    log.error("another run has taken this output over: stopping")
                    if self._on_lost:
                        self._on_lost()
                    return
                self._store.write(NAME, self._content())
            except OSError as error:
                # A store that is away for a while must not end the run: commits have their own
                # retries, and they are create-only.
                log.warning("heartbeat failed, trying again: %s", error)


@dataclass(frozen=True)
class Holder:
    """Who wrote a lease, as far as it can be told."""

    token: str
    host: str
    """Its machine's name, to be shown and for nothing else."""
    pid: int | None
    machine: str | None
    started: int | None

    @classmethod
    def parse(cls, data: bytes) -> Holder | None:
        """The holder; None where `data` is nothing that a lease holds."""
        try:
            content = json.loads(data)
        except (ValueError, RecursionError):
            return None
        if not isinstance(content, dict) or not isinstance(content.get("token"), str):
            return None
        host, machine = content.get("host"), content.get("machine")
        return cls(
            token=content["token"],
            host=host if isinstance(host, str) else "an unknown machine",
            pid=_whole(content.get("pid")),
            machine=machine if isinstance(machine, str) else None,
            started=_whole(content.get("started")),
        )

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def died_here(self) -> bool:
        """Whether it ran under this kernel, and is known to run no more."""
        if self.pid is None or self.machine is None or self.machine != _machine():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            pass  # It is there, and another user's; or no process id.
        now = _started(self.pid)
        return None not in (now, self.started) and now != self.started


def _whole(value: object) -> int | None:
    """A number that can be a process id, or the ticks at which one started."""
    plain = isinstance(value, int) and not isinstance(value, bool)
    return value if plain and 0 < value < 2**63 else None  # type: ignore[operator, return-value]


def _machine() -> str | None:
    """This kernel since it was started, and this container on it: where a process id means the same
    process. None where that cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _started(pid: int) -> int | None:
    """When a process started, in ticks since the kernel did; no clock that is set changes it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        # Behind the program's name in brackets, which may hold anything.
        return int(stat.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
