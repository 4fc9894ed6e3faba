"""Committing a unit: its objects, in an order in which being cut off at any point does no harm.

    rejects/<unit>.parquet          what could not be labelled
    bank/log/<seq>-<unit>-...       what the unit changed in the bank
    partial/, shards/               markers that spare a later run reading shards again
    labels/<unit>.parquet           the commit point: from here on the unit is done

Every name follows from the unit, so a retry writes the same objects. Labels are created, never
overwritten: of two attempts one wins, and what counts is what the winner's labels refer to.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import Any, Protocol

from mint_stream.logs import about
from mint_stream.storage import Store
from mint_stream.units import (
    labels_name,
    partial_name,
    rejects_name,
    relabelled_name,
    shard_end_name,
)

log = logging.getLogger(__name__)


class Bank(Protocol):
    """Who is told that a unit's merge is durable now; see `BankServer.committed`."""

    def committed(self, unit: str, log_name: str | None) -> None: ...


def commit_unit(
    unit: Mapping[str, Any], store: Store, bank: Bank | None, *, again: bool = False
) -> dict[str, Any]:
    """Commit a unit (flow.LABELLED_ROW) and say so (flow.COMMITTED_ROW).

    again: the unit is committed, and was labelled again: only its new rows are written.

    Raises:
        StorageError: the store refused, or did not answer within the bound on retries. What was
            committed before stays; the unit is labelled again by the next run.
    """
    with about(unit=unit["unit"]):
        return _recommit(unit, store) if again else _commit(unit, store, bank)


def _commit(unit: Mapping[str, Any], store: Store, bank: Bank | None) -> dict[str, Any]:
    started = time.perf_counter()
    name = unit["unit"]
    _write_rejects(name, unit["rejects"], store)
    if unit["log_name"]:
        store.create(unit["log_name"], unit["log"])
    if unit["partial"]:
        store.create(partial_name(name), b"")
    if unit["shard_frames"] is not None:
        store.create(shard_end_name(unit["shard_id"], unit["shard_frames"]), b"")
    won = store.create(labels_name(name), unit["labels"])
    if not won:
        log.warning("unit %s was committed by another attempt before", name)
    if bank is not None:
        # Where another attempt won, its labels say which merge counts: the server looks there.
        bank.committed(name, unit["log_name"] if won else None)
    return _told(unit, won, started)


def _recommit(unit: Mapping[str, Any], store: Store) -> dict[str, Any]:
    started = time.perf_counter()
    won = store.create(relabelled_name(unit["unit"]), unit["labels"])
    # A frame that cannot be read any more keeps its row.
    return _told({**unit, "rejected": "{}"}, won, started)


def _told(unit: Mapping[str, Any], won: bool, started: float) -> dict[str, Any]:
    seconds = {**json.loads(unit["stage_seconds"]), "commit": time.perf_counter() - started}
    counts = {name: unit[name] for name in _TOLD}
    return {**counts, "won": won, "stage_seconds": json.dumps(seconds)}


_TOLD = (
    *("unit", "labelled", "abstained", "adapted", "spared", "adapt_seconds", "rejected"),
    *("bank_seq", "bank_staleness", "cameras"),
)
"""What is handed on to the driver as it came."""


def _write_rejects(unit: str, data: bytes | None, store: Store) -> None:
    """Make the unit's rejects what this attempt found, unless the unit is committed already."""
    name = rejects_name(unit)
    same = store.create(name, data) if data is not None else not store.exists(name)
    if same or store.exists(labels_name(unit)):
        return
    # An earlier attempt got as far as its rejects and no further.
    if data is None:
        store.delete(name)
    else:
        store.write(name, data)
