"""The newest bank of a run, watched from outside: its checkpoints, or its live bank server.

A watch answers `news()` with banks that are newer than those it gave last, and with None where
there are none. Reading changes nothing: neither the store nor the server's banks.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mint_stream.bank.checkpoint import FOLDER, Checkpoint
from mint_stream.bank.client import BankClient
from mint_stream.bank.files import BankFileError, read_bank
from mint_stream.config import BankScope, MethodConfig, as_dict
from mint_stream.method.bank_state import Banks, initial_state
from mint_stream.store.errors import ObjectMissing
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
        for checkpoint in self._newer(sorted(written)):
            banks = self._load(checkpoint)
            if banks is not None:
                self._seen, self._number = there, checkpoint.number
                scope = checkpoint.identity.get("scope", "shared")
                name = f"{checkpoint.name}.json"
                made_at = written[name] or time.time()
                return BankNews(banks, scope, self._store.uri(name), made_at)
        self._seen = there
        return None

    def _newer(self, names: list[str]) -> list[Checkpoint]:
        """Checkpoints with a sound JSON that are newer than the last one given, newest first."""
        found = []
        for name in names:
            if not name.endswith(".json"):
                continue
            try:
                checkpoint = Checkpoint.from_json(self._store.read(name))
            except ObjectMissing:
                continue  # retired since it was listed
            except ValueError as error:
                log.warning("bank checkpoint %s is damaged and passed over: %s", name, error)
                continue
            if checkpoint.number > self._number:
                found.append(checkpoint)
        return sorted(found, key=lambda checkpoint: checkpoint.number, reverse=True)

    def _load(self, checkpoint: Checkpoint) -> Banks | None:
        _require_same(checkpoint.name, checkpoint.identity, self._identity)
        initial = initial_state(
            entries=self._method.bank_size,
            prompt_rows=self._method.prompt_rows,
            width=self._width,
            seed=self._method.bank_seed(int(checkpoint.identity.get("seed", 0))),
        )
        try:
            data = self._store.read(f"{checkpoint.name}.parquet")
            if hashlib.sha256(data).hexdigest() != checkpoint.parquet_sha256:
                raise BankFileError("its content does not match the hash that was written with it")
            return read_bank(data, initial)
        except (ObjectMissing, BankFileError) as error:
            log.warning("bank checkpoint %s is passed over: %s", checkpoint.name, error)
            return None


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
    # Through JSON, so that tuples and lists, 1 and 1.0 compare as they will be read.
    mine = json.loads(json.dumps(dict(mine)))
    for key, what in (("model", "model"), ("method", "preset")):
        if theirs.get(key) == mine[key]:
            continue
        if isinstance(mine[key], dict) and isinstance(theirs.get(key), dict):
            there, here = theirs[key], mine[key]
            shown = "; ".join(
                f"{field} is {there.get(field)!r} there, {here.get(field)!r} here"
                for field in sorted({*there, *here})
                if there.get(field) != here.get(field)
            )
        else:
            shown = f"{theirs.get(key)!r} there, {mine[key]!r} here"
        raise WrongBank(
            f"the bank checkpoint {name} was made with another {what} ({shown}): serve with the "
            f"{what} that it was made with, or name another bank"
        )
