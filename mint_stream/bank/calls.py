"""The bank server's methods for whoever reaches it from elsewhere, by whatever way."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from mint_stream.bank.exchange import (
    BankStatus,
    Fetched,
    HeldMerge,
    MergeAnswer,
    Position,
    Restarted,
)
from mint_stream.method.bank_state import Update


class BankCalls:
    """`BankServer`'s methods, each one call of `_call`, which a way of reaching it supplies."""

    @abstractmethod
    def _call(self, method: str, *arguments: Any) -> Any:
        """Call `method` of the server. Raises what it raises; `BankError` if it is out of reach."""

    def scopes(self) -> frozenset[str]:
        """See `BankLedger.scopes`."""
        answer: frozenset[str] = self._call("scopes")
        return answer

    def pull(self, unit: str) -> Position:
        """See `BankLedger.pull`."""
        answer: Position = self._call("pull", unit)
        return answer

    def fetch(self, incarnation: str, scope: str) -> Fetched | Restarted:
        """See `BankLedger.fetch`."""
        answer: Fetched | Restarted = self._call("fetch", incarnation, scope)
        return answer

    def merge(
        self,
        incarnation: str,
        unit: str,
        update: Update,
        versions: Mapping[str, int],
        held: Sequence[str],
    ) -> MergeAnswer | Restarted:
        """See `BankLedger.merge`."""
        answer: MergeAnswer | Restarted = self._call(
            "merge", incarnation, unit, update, versions, held
        )
        return answer

    def rejoin(self, held: Sequence[HeldMerge]) -> Position:
        """See `BankServer.rejoin`."""
        answer: Position = self._call("rejoin", held)
        return answer

    def committed(self, unit: str, log_name: str | None) -> None:
        """See `BankServer.committed`."""
        self._call("committed", unit, log_name)

    def checkpoint(self) -> int:
        """See `BankServer.checkpoint`."""
        answer: int = self._call("checkpoint")
        return answer

    def drop_unfinished(self) -> None:
        """See `BankServer.drop_unfinished`."""
        self._call("drop_unfinished")

    def finish(self) -> BankStatus:
        """See `BankServer.finish`."""
        answer: BankStatus = self._call("finish")
        return answer

    def status(self) -> BankStatus:
        """See `BankServer.status`."""
        answer: BankStatus = self._call("status")
        return answer
