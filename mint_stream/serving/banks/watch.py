"""The newest bank of a run, watched from outside: its checkpoints, or its live bank server.

A watch answers `news()` with banks that are newer than those it gave last, and with None where
there are none. Reading changes nothing: neither the store nor the server's banks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mint_stream.bank.checkpoint import FOLDER, Checkpoint, find, newest_sound
from mint_stream.bank.client import BankClient
from mint_stream.bank.files import read_bank
from mint_stream.config import BankScope, MethodConfig, as_dict
from mint_stream.method.bank_state import Banks, initial_state
from mint_stream.output.settings import differences
from mint_stream.store.store import Store
from mint_stream.store.types import ObjectInfo

log = logging.getLogger(__name__)

_MOST_SCOPES = 64
"""Banks that a live watch follows: the names of cameras come from whoever sends requests."""


class WrongBank(ValueError):
    """A bank that was made with another model or method. The message says what to change."""


@dataclass(frozen=True)
class BankNews:
    """Banks to answer with from now on."""

    banks: Banks
    scope: BankScope
    source: str
    """Where they come from, for a person."""
    made_at: float
    """When they were written, or seen to have changed: seconds since 1970."""


class BankWatch(Protocol):
    """Where banks come from. `news` may take long and is called from one thread."""

    def news(self) -> BankNews | None:
        """Newer banks, if there are any. Raises `WrongBank`, `StorageError` or `BankError`."""
        ...


class CheckpointWatch:
    """The newest sound checkpoint below `store`.

    Its hashes are checked; one that is damaged, or still being written, is passed over for the one
    before it. One that was made with another model or method raises `WrongBank`.
    """

    def __init__(self, store: Store, *, model_hash: str, method: MethodConfig, width: int) -> None:
        self._store, self._width, self._method = store, width, method
        self._identity = {"model": model_hash, "method": as_dict(method)}
        self._seen: frozenset[ObjectInfo] = frozenset()
        self._number = -1

    def news(self) -> BankNews | None:
        """The newest sound checkpoint, if it is newer than the last one given."""
        there = frozenset(self._store.list(FOLDER))
        if there == self._seen:
            return None
        written = {info.name: info.mtime for info in there}
        found = find(self._store, there)
        for name in found.damaged:
            log.warning("bank checkpoint %s is passed over: its JSON is not sound", name)
        found.sound = [one for one in found.sound if one.number > self._number]
        newest = newest_sound(
            self._store, self._load, found=found, check=self._check, damaged=_pass_over
        )
        self._seen = there
        if newest is None:
            return None
        checkpoint, banks = newest
        self._number = checkpoint.number
        name = f"{checkpoint.name}.json"
        made_at = written[name] or time.time()
        scope = checkpoint.identity.get("scope", "shared")
        return BankNews(banks, scope, self._store.uri(name), made_at)

    def _check(self, checkpoint: Checkpoint) -> None:
        _require_same(checkpoint.name, checkpoint.identity, self._identity)

    def _load(self, checkpoint: Checkpoint, data: bytes) -> Banks:
        initial = initial_state(
            entries=self._method.bank_size,
            prompt_rows=self._method.prompt_rows,
            width=self._width,
            seed=self._method.bank_seed(int(checkpoint.identity.get("seed", 0))),
        )
        return read_bank(data, initial)


def _pass_over(checkpoint: Checkpoint, why: str) -> None:
    log.warning("bank checkpoint %s is passed over: %s", checkpoint.name, why)


class LiveWatch:
    """The banks of a bank server that is running: every merge, committed or not.

    The server counts this as a labeler that changes nothing: only rows that changed are sent.
    """

    def __init__(self, client: BankClient, *, name: str, reader: str, scope: BankScope) -> None:
        self._client, self._name, self._reader, self._scope = client, name, reader, scope
        self._cameras: set[str] = {"shared"} if scope == "shared" else set()
        self._given: tuple[int, frozenset[str]] | None = None

    def want(self, scope: str) -> None:
        """Follow the bank of `scope` as well, unless there are many already."""
        if len(self._cameras) < _MOST_SCOPES:
            self._cameras.add(scope)

    def news(self) -> BankNews | None:
        """What the server holds, if it merged since or another scope is wanted."""
        wanted = frozenset(self._cameras)
        if self._given is None:
            self._client.begin(self._reader)
        self._client.merge(self._reader, {})
        states = {scope: self._client.state(scope) for scope in sorted(wanted)}
        self._client.begin(self._reader)
        now = (self._client.seq, wanted)
        if now == self._given:
            return None
        self._given = now
        # A bank that nobody has changed is the random start: it has nothing to say.
        used = {scope: state for scope, state in states.items() if state.last_seq_K.any()}
        initial = next(iter(states.values()), None)
        if initial is None:
            return None
        banks = Banks(initial, used, self._client.seq)
        return BankNews(banks, self._scope, self._name, time.time())


def _require_same(name: str, theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    for key, what in (("model", "model"), ("method", "preset")):
        found = differences({key: theirs.get(key)}, {key: mine[key]})
        shown = "; ".join(
            f"{name.partition('.')[2]} is {there!r} there, {here!r} here".removeprefix(" is ")
            for name, there, here in found
        )
        if not found:
            continue
        raise WrongBank(
            f"the bank checkpoint {name} was made with another {what} ({shown}): serve with the "
            f"{what} that it was made with, or name another bank"
        )
