"""Committing a unit: its objects, in an order in which being cut off at any point does no harm.

    rejects/<unit>.parquet          what could not be labelled
    bank/log/<seq>-<unit>-...       what the unit changed in the bank
    partial/, shards/               markers that spare a later run reading shards again
    labels/<unit>.parquet           the commit point: from here on the unit is done

Every name follows from the unit, so a retry writes the same objects. Labels are created, never
overwritten: of two attempts one wins, and what counts is what the winner's labels refer to.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

from mint_stream.logs import about
from mint_stream.output.names import (
    labels_name,
    partial_name,
    rejects_name,
    relabelled_name,
    shard_end_name,
)
from mint_stream.output.units import CommittedUnit, LabelledUnit
from mint_stream.store.store import Store

log = logging.getLogger(__name__)

_AT_ONCE = 8
"""Units whose objects are written at the same time."""


class Bank(Protocol):
    """Who is told that a unit's merge is durable now; see `BankServer.committed`."""

    def committed(self, unit: str, log_name: str | None) -> None: ...


def commit_units(
    units: Sequence[LabelledUnit], store: Store, bank: Bank | None, *, again: bool = False
) -> list[CommittedUnit]:
    """Commit units in their order, and say what became of each.

    What stands before the commit points is written for several units at a time: a distant store
    takes as long for one small object as for ten.

    again: the units are committed, and were labelled again: only their new rows are written.

    Raises:
        StorageError: the store refused, or did not answer within the bound on retries. What was
            committed before stays; the other units are labelled again by the next run.
    """
    started = time.perf_counter()
    if not again:
        _each(lambda unit: _write_ahead(unit, store), units)
    ahead_s = (time.perf_counter() - started) / max(1, len(units))
    committed = []
    for unit in units:
        started = time.perf_counter() - ahead_s
        with about(unit=unit.unit):
            won = _recommit(unit, store) if again else _commit(unit, store, bank)
        seconds = {**unit.facts.stage_seconds, "commit": time.perf_counter() - started}
        # A frame that cannot be read any more keeps its row.
        rejected = {} if again else unit.facts.rejected
        facts = replace(unit.facts, stage_seconds=seconds, rejected=rejected)
        committed.append(CommittedUnit(unit=unit.unit, won=won, facts=facts))
    return committed


def commit_unit(
    unit: LabelledUnit, store: Store, bank: Bank | None, *, again: bool = False
) -> CommittedUnit:
    """`commit_units` of one."""
    return commit_units([unit], store, bank, again=again)[0]


def _each(write: Callable[[LabelledUnit], None], units: Sequence[LabelledUnit]) -> None:
    if len(units) == 1:
        write(units[0])
    elif units:
        with ThreadPoolExecutor(min(_AT_ONCE, len(units))) as writers:
            list(writers.map(write, units))


def _write_ahead(unit: LabelledUnit, store: Store) -> None:
    """What has to be there when the unit is committed, and does no harm if it never is."""
    with about(unit=unit.unit):
        _write_rejects(unit.unit, unit.rejects, store)
        if unit.log is not None:
            store.create(unit.log_name, unit.log)
        if unit.partial:
            store.create(partial_name(unit.unit), b"")
        if unit.shard_frames is not None:
            left_out = (unit.facts.left_out or "").encode()
            store.create(shard_end_name(unit.shard_id, unit.shard_frames), left_out)


def _commit(unit: LabelledUnit, store: Store, bank: Bank | None) -> bool:
    won = store.create(labels_name(unit.unit), unit.labels)
    if not won:
        log.warning("unit %s was committed by another attempt before", unit.unit)
    if bank is not None:
        # Where another attempt won, its labels say which merge counts: the server looks there.
        bank.committed(unit.unit, unit.log_name if won else None)
    return won


def _recommit(unit: LabelledUnit, store: Store) -> bool:
    return store.create(relabelled_name(unit.unit), unit.labels)


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
