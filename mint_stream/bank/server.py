"""The bank server: it holds the ledger, restores it from the store and checkpoints it.

A plain class; `bank_actor` runs it as an actor. Killed and started again, it restores from the
newest checkpoint and the log objects of committed units. What labelers merged since and is not
committed, they bring along (`rejoin`).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mint_stream.bank import checkpoint
from mint_stream.bank import log as bank_log
from mint_stream.bank.exchange import (
    BankStatus,
    Fetched,
    HeldMerge,
    MergeAnswer,
    Position,
    Restarted,
)
from mint_stream.bank.files import LogName
from mint_stream.bank.ledger import BankLedger
from mint_stream.config import BankScope, MethodConfig, as_dict
from mint_stream.method.bank_state import Banks, Update, initial_state
from mint_stream.output.generations import read_record
from mint_stream.store.errors import StorageError
from mint_stream.store.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BankConfig:
    """What a bank server has to know; small, so that it travels with the actor."""

    store: Store
    """The root of the output."""
    entries: int
    """K, and `prompt_rows` P and `width` D: the shape of a bank."""
    prompt_rows: int
    width: int
    seed: int | None
    identity: Mapping[str, Any] = field(default_factory=dict)
    """What the bank belongs to (model hash, method): a checkpoint of another one is refused."""
    checkpoint_every_s: float = 60.0
    in_order: bool = False
    """There is one labeler, whose units are committed in the order of their merges."""
    settle_s: float = 60.0
    """After a restart: how long commits from before may take to arrive and still find their place
    in the order. Until then there is no new checkpoint, and the log stays."""


def bank_config(
    method: MethodConfig,
    *,
    store: Store,
    width: int,
    model_hash: str,
    scope: BankScope,
    seed: int,
    **more: Any,
) -> BankConfig:
    """The bank of one output: runs and services with the same of these continue the same bank.

    width: D, of the image tower; more: further fields of `BankConfig`.
    """
    return BankConfig(
        store=store,
        entries=method.bank_size,
        prompt_rows=method.prompt_rows,
        width=width,
        seed=method.bank_seed(seed),
        identity={"model": model_hash, "method": as_dict(method), "scope": scope, "seed": seed},
        **more,
    )


class BankServer:
    """The ledger, its storage and its clock. Thread-safe.

    Restores on the first call, so that a failure reaches the caller as it is: each method raises
    `RestoreError` or `StorageError` where the bank cannot be restored, and the next call tries
    again. `restarted`: whether another server was there in this run, and commits of units that
    were merged by it may be under way; then the clock restores as well.
    """

    def __init__(self, config: BankConfig, *, restarted: bool = False) -> None:
        self._config, self._store = config, config.store
        self._initial = initial_state(
            entries=config.entries,
            prompt_rows=config.prompt_rows,
            width=config.width,
            seed=config.seed,
        )
        self._lock = threading.Lock()
        self._checkpointing = threading.Lock()
        self._number = 0
        self._saved: Banks | None = None
        self._checkpoint_error: str | None = None
        self._notes: tuple[str, ...] = ()
        self._restarted = restarted
        self._settles_at = 0.0
        self._ledger: BankLedger | None = None
        self._stop = threading.Event()

    def start_clock(self) -> None:
        """Write checkpoints every `checkpoint_every_s` from now on, until `finish`."""
        threading.Thread(target=self._keep_time, name="bank-clock", daemon=True).start()

    def scopes(self) -> frozenset[str]:
        """See `BankLedger.scopes`."""
        with self._lock:
            return self._opened().scopes()

    def pull(self, unit: str) -> Position:
        """See `BankLedger.pull`."""
        with self._lock:
            return self._opened().pull(unit)

    def fetch(self, incarnation: str, scope: str) -> Fetched | Restarted:
        """See `BankLedger.fetch`."""
        with self._lock:
            return self._opened().fetch(incarnation, scope)

    def merge(
        self,
        incarnation: str,
        unit: str,
        update: Update,
        versions: Mapping[str, int],
        held: Sequence[str],
    ) -> MergeAnswer | Restarted:
        """See `BankLedger.merge`."""
        with self._lock:
            return self._opened().merge(incarnation, unit, update, versions, held)

    def rejoin(self, held: Sequence[HeldMerge]) -> Position:
        """See `BankLedger.rejoin`. What was committed meanwhile is looked up on the store."""
        with self._lock:
            uncommitted = [m for m in held if not self._look_up(LogName.parse(m.name).unit)]
            return self._opened().rejoin(uncommitted)

    def committed(self, unit: str, log_name: str | None) -> None:
        """Note that the labels of `unit` are on the store.

        log_name: the log object that those labels refer to, "" if they refer to none; None if the
        caller does not know, because another attempt's labels were there first.
        """
        with self._lock:
            if log_name is None:
                self._look_up(unit)
            elif not self._opened().committed(unit, log_name):
                self._ledger = self._restore()

    def checkpoint(self) -> int:
        """Write what is durable, unless the last checkpoint holds it; gives its seq.

        Raises `StorageError` if it cannot be written.
        """
        with self._checkpointing:
            with self._lock:
                ledger, number = self._opened(), self._number + 1
                banks, covered = ledger.snapshot()
            if banks is self._saved:
                return banks.seq
            try:
                checkpoint.save(
                    self._store,
                    banks,
                    covered=covered,
                    number=number,
                    identity=self._config.identity,
                )
            except StorageError as error:
                self._checkpoint_error = str(error)
                raise
            with self._lock:
                self._number, self._saved, self._checkpoint_error = number, banks, None
                if self._ledger is not ledger:
                    # Restored while this was written: what is down now is what to start from.
                    self._ledger = self._restore()
            self._retire()
            return banks.seq

    def drop_unfinished(self) -> None:
        """Nobody labels or commits any more: the bank becomes that of the committed units.

        Raises `StorageError`.
        """
        with self._lock:
            for name in self._opened().pending:
                self._look_up(name.unit)
            self._opened().drop_pending()

    def finish(self) -> BankStatus:
        """End of a run: `drop_unfinished`, and the last checkpoint. Raises `StorageError`."""
        self._stop.set()
        self.drop_unfinished()
        with self._lock:
            self._opened().settle()
        self.checkpoint()
        return self.status()

    def status(self) -> BankStatus:
        """How the bank server is doing."""
        with self._lock:
            ledger = self._opened()
            return BankStatus(
                pid=os.getpid(),
                incarnation=ledger.incarnation,
                seq=ledger.live.seq,
                durable_seq=ledger.durable.seq,
                pending=len(ledger.pending),
                waiting=ledger.waiting,
                checkpoint_seq=None if self._saved is None else self._saved.seq,
                checkpoint_error=self._checkpoint_error,
                notes=self._notes,
            )

    def _retire(self) -> None:
        try:
            gone = checkpoint.retire(self._store)
        except StorageError:
            # Costs space, no more: the next checkpoint tries again.
            log.exception("old bank checkpoints and log objects could not be removed")
            return
        with self._lock:
            self._opened().forget(gone)

    def _opened(self) -> BankLedger:
        if self._ledger is None:
            self._ledger = self._restore()
        return self._ledger

    def _restore(self) -> BankLedger:
        """A ledger with what the store holds, under a new incarnation."""
        found = checkpoint.restore(self._store, self._initial, self._config.identity)
        self._number = max(self._number, found.number)
        self._notes = tuple(found.notes)
        self._saved = None if found.notes else found.checkpoint
        self._settles_at = time.monotonic() + (self._config.settle_s if self._restarted else 0.0)
        # From here on, to restore means that a commit came in that belongs further back.
        settled, self._restarted = not self._restarted, True
        log.info(
            "bank restored: checkpoint at %d, %d merges since",
            found.checkpoint.seq,
            len(found.merges),
        )
        return BankLedger(
            found.checkpoint,
            lambda name: bank_log.read_log(self._store, name),
            merges=found.merges,
            covered=found.covered,
            settled=settled,
            in_order=self._config.in_order,
        )

    def _look_up(self, unit: str) -> bool:
        """Whether the labels of `unit` are on the store; if so, the ledger knows it afterwards."""
        log_name = bank_log.committed_log(self._store, unit, read_record(self._store))
        if log_name is None:
            return False
        if not self._opened().committed(unit, log_name):
            self._ledger = self._restore()
        return True

    def _keep_time(self) -> None:
        while not self._stop.wait(self._config.checkpoint_every_s):
            try:
                with self._lock:
                    if self._ledger is None and not self._restarted:
                        continue
                    # Started again, nobody may call for long: what is committed still waits.
                    ledger = self._opened()
                    if time.monotonic() >= self._settles_at:
                        ledger.settle()
                self.checkpoint()
            except Exception:
                # Labelling goes on: what a checkpoint would hold is in the log as well.
                log.exception("the bank checkpoint failed; it will be tried again")
