"""A labeler's side of the synchronized bank: its replicas, and the calls that keep them current.

    client = BankClient(bank)
    for unit in units:
        seq = client.begin(unit)
        before = client.state(scope)
        ...adapt on effective(before)...
        receipt = client.merge(unit, {scope: delta(before, ...)})

`bank` is whoever holds the ledger: a `LocalBank` in this process, or a bank server elsewhere. After
a merge the replicas hold the bits of the ledger's live banks. No ray here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from mint_stream.bank.exchange import (
    Fetched,
    HeldMerge,
    MergeAnswer,
    Outcome,
    Position,
    Restarted,
    adopt,
)
from mint_stream.bank.files import LogName
from mint_stream.bank.ledger import BankError, BankLedger
from mint_stream.method.bank_state import Banks, BankState, Update

_RESTARTS = 20
"""Restarts of the bank server that one call is carried through."""


class Bank(Protocol):
    """Who holds the ledger: `ledger` says what each call means, and in which order they come."""

    def scopes(self) -> frozenset[str]:
        """Those that have a bank of their own by now."""
        ...

    def pull(self, unit: str) -> Position:
        """Start a labeler on `unit`."""
        ...

    def fetch(self, incarnation: str, scope: str) -> Fetched | Restarted:
        """The whole live bank of `scope`."""
        ...

    def merge(
        self,
        incarnation: str,
        unit: str,
        update: Update,
        versions: Mapping[str, int],
        held: Sequence[str],
    ) -> MergeAnswer | Restarted:
        """Add `update` of `unit` and say what changed since `versions`."""
        ...

    def rejoin(self, held: Sequence[HeldMerge]) -> Position:
        """Take in merges that a labeler made before a restart."""
        ...


class LocalBank(BankLedger):
    """A bank for this process alone, without storage: every merge counts as committed."""

    def __init__(self, initial: BankState) -> None:
        super().__init__(Banks(initial), lambda name: None)

    def merge(
        self,
        incarnation: str,
        unit: str,
        update: Update,
        versions: Mapping[str, int],
        held: Sequence[str] = (),
    ) -> MergeAnswer | Restarted:
        """As the ledger's, and committed."""
        answer = super().merge(incarnation, unit, update, versions, held)
        if isinstance(answer, MergeAnswer) and answer.outcome == "merged":
            self.committed(unit, answer.name)
        return answer


@dataclass(frozen=True)
class MergeReceipt:
    """What became of a unit's update."""

    outcome: Outcome
    log_name: str
    """Where the unit's update is to be logged; "" where there is nothing to log."""
    seq: int
    """The merge's number, as in `log_name`; without one, merges that the bank has seen."""


class BankClient:
    """The replicas of one labeler. Not thread-safe: a labeler works on one unit at a time."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank
        self.seq = 0
        """Merges that the replicas have seen."""
        self.calls = 0
        self.seconds = 0.0
        """Time spent waiting for the bank."""
        self._incarnation: str | None = None
        self._scopes: dict[str, None] = {}
        self._unit_states: dict[str, BankState] = {}
        self._replicas: dict[str, BankState] = {}
        self._versions: dict[str, int] = {}
        self._held: dict[str, HeldMerge] = {}
        self._taken_over: set[str] = set()
        """Units that an earlier labeler merged, not committed when this one started."""

    def begin(self, unit: str) -> int:
        """Start on `unit`; gives the merges that the bank has seen so far.

        Calls the bank on the labeler's first unit, and on one that an earlier labeler had merged:
        to be handed it again means that it died there. Raises `BankError` if the bank cannot be
        reached.
        """
        self._unit_states = {}
        if self._incarnation is None or unit in self._taken_over:
            self._pull(unit)
        return self.seq

    def state(self, scope: str) -> BankState:
        """The bank of `scope` as this unit sees it: the same object until `merge` or `begin`.

        Fetched whole the first time, kept up by merges.
        """
        if scope not in self._unit_states:
            self._scopes[scope] = None
            for _ in range(_RESTARTS):
                if self._fill():
                    break
            else:
                raise self._restarts_too_often()
            self._unit_states[scope] = self._replicas[scope]
        return self._unit_states[scope]

    def merge(self, unit: str, update: Update) -> MergeReceipt:
        """Send what `unit` changed and take over what others changed in the meantime.

        To be called once for every unit, also for an empty update: that costs no seq, but brings
        the replicas up to date. Raises `BankUpdateError`, with bank and replicas unchanged, for
        an update that is not finite or does not fit; `BankError` if the bank cannot be reached.
        """
        self._scopes.update(dict.fromkeys(update))
        for _ in range(_RESTARTS):
            if not self._fill():
                continue
            with self._call():
                answer = self.bank.merge(
                    self._current(), unit, update, dict(self._versions), tuple(self._held)
                )
            if isinstance(answer, MergeAnswer):
                self._unit_states = {}
                return self._take_over(answer, update)
            self._rejoin()
        raise self._restarts_too_often()

    def _take_over(self, answer: MergeAnswer, update: Update) -> MergeReceipt:
        seq = LogName.parse(answer.name).seq if answer.name else answer.seq
        for scope, others in answer.patches.items():
            own = update.get(scope) if answer.outcome == "merged" else None
            own = None if own is None or own.is_empty else own
            self._replicas[scope] = adopt(self._replicas[scope], others, own, seq)
            self._versions[scope] = answer.version
        self.seq = answer.seq
        if answer.name:
            self._held[answer.name] = HeldMerge(answer.name, update)
        for name in answer.settled:
            self._held.pop(name, None)
        return MergeReceipt(answer.outcome, answer.name, seq)

    def _fill(self) -> bool:
        """Fetch the banks of which there is no replica. False if the bank server was restarted."""
        for scope in self._scopes:
            if scope in self._replicas:
                continue
            with self._call():
                fetched = self.bank.fetch(self._current(), scope)
            if isinstance(fetched, Restarted):
                self._rejoin()
                return False
            self._replicas[scope], self._versions[scope] = fetched.state, fetched.version
            self.seq = fetched.seq
        return True

    def _pull(self, unit: str) -> None:
        """Have an earlier attempt at `unit` taken out, and hold the merges that are under way."""
        for _ in range(_RESTARTS):
            if self._incarnation is not None:
                self._rejoin()
            with self._call():
                position = self.bank.pull(unit)
            if self._incarnation in (None, position.incarnation):
                break
        else:
            raise self._restarts_too_often()
        under_way = {LogName.parse(merge.name).unit for merge in position.held}
        first = self._incarnation is None
        self._taken_over = under_way if first else self._taken_over & under_way
        self._held = {merge.name: merge for merge in position.held}
        self._move_to(position)

    def _rejoin(self) -> None:
        """Bring a restarted bank server what it may lack; replicas are to be fetched again."""
        with self._call():
            self._move_to(self.bank.rejoin(tuple(self._held.values())))

    def _move_to(self, position: Position) -> None:
        self._incarnation, self.seq = position.incarnation, position.seq
        self._replicas, self._versions = {}, {}

    def _current(self) -> str:
        if self._incarnation is None:
            raise BankError("begin(unit) has to be called before the bank is used")
        return self._incarnation

    @contextmanager
    def _call(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.calls += 1
            self.seconds += time.perf_counter() - started

    def _restarts_too_often(self) -> BankError:
        return BankError(
            f"the bank server restarted {_RESTARTS} times during one call; its log says why "
            "(memory, most often). What was committed is intact: the same command continues there"
        )
