"""The bank log on the store: which of its objects count, and what they say.

A log object counts if the labels of its unit exist and name it (`BANK_LOG_KEY` in their Parquet
metadata, or the record that took their place: `compacted`). Everything else in `bank/log/` is the
trace of an attempt that was cut off, or lost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from mint_stream.bank.files import LOG_FOLDER, BankFileError, LogName, read_delta
from mint_stream.method.bank_state import Update
from mint_stream.output.generations import Record, read_record
from mint_stream.output.names import labels_name
from mint_stream.store.errors import ObjectMissing
from mint_stream.store.store import Store

BANK_LOG_KEY = b"mint.bank_log"
"""Metadata of a labels file: the log object of its unit, or empty where the unit has none."""
_CONNECTIONS = 16
"""Objects in flight at a time: small ones wait on latency alone."""

T = TypeVar("T")
R = TypeVar("R")


class RestoreError(RuntimeError):
    """The bank cannot be brought back exactly. The message says what is damaged and what to do.

    why: what is wrong with a single log object, where that is the reason.
    """

    def __init__(self, message: str, why: str = "") -> None:
        super().__init__(message)
        self.why = why


def read_log(store: Store, name: str) -> Update | None:
    """The update in the log object `name`, None if there is none.

    Raises `RestoreError` if its content is not what its name says.
    """
    try:
        update = read_delta(store.read(name))
    except ObjectMissing:
        return None
    except BankFileError as error:
        raise _damaged_log(store, name, str(error)) from error
    expected = LogName.parse(name)
    if LogName.of(expected.seq, expected.unit, update) != expected:
        raise _damaged_log(store, name, "its content does not match the hash in its name")
    return update


def committed_log(store: Store, unit: str, record: Record | None) -> str | None:
    """The log object that the labels of `unit` refer to: "" for none, None if not committed.

    record: as `read_record` gives it.
    """
    if record is not None and unit in record.units:
        return record.units[unit].bank_log
    name = labels_name(unit)
    try:
        metadata = pq.read_schema(pa.BufferReader(store.read(name))).metadata or {}
        return bytes(metadata[BANK_LOG_KEY]).decode()
    except ObjectMissing:
        later = read_record(store)  # the file may have gone into it just now
        return later.units[unit].bank_log if later and unit in later.units else None
    except (pa.ArrowException, OSError, KeyError) as error:
        raise RestoreError(
            f"{store.uri(name)} does not say which bank update belongs to it ({error!r}): it is "
            "damaged, or was not written by mint_stream. Bring it back from a backup or an older "
            "object version, or delete it to have its frames labelled again"
        ) from error


def log_since(
    store: Store, seq: int, covered: Iterable[str], notes: list[str]
) -> tuple[list[tuple[LogName, Update]], frozenset[str]]:
    """Committed merges on the store that a checkpoint does not hold, in the order of their names.

    seq, covered: the checkpoint's. Also gives the log objects on the store that must never be
    replayed on it; adds to `notes` what a person should know. Raises `RestoreError` for a damaged
    log object of a committed unit.
    """
    present = {info.name for info in store.list(LOG_FOLDER)}
    record = read_record(store)
    held = present.intersection(covered)
    candidates: dict[str, set[str]] = defaultdict(set)
    for name in sorted(present - held):
        try:
            candidates[LogName.parse(name).unit].add(name)
        except BankFileError as error:
            notes.append(f"{error}; it was left alone")
    units = sorted(candidates)
    superfluous: set[str] = set()
    chosen: list[str] = []
    for unit, counts in zip(
        units, each(lambda u: committed_log(store, u, record), units), strict=True
    ):
        if counts is None:
            continue
        superfluous |= candidates[unit] - {counts}
        if counts in candidates[unit]:
            chosen.append(counts)
        elif counts and LogName.parse(counts).seq > seq:
            notes.append(f"{counts}, the bank update of a committed unit, is gone and left out")
    merges = [
        (LogName.parse(name), update)
        for name, update in zip(chosen, each(lambda n: read_log(store, n), chosen), strict=True)
        if update is not None
    ]
    return sorted(merges, key=lambda merge: merge[0]), frozenset(held | superfluous)


def each(call: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`call` on every item, several at a time."""
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        return list(pool.map(call, items))


def _damaged_log(store: Store, name: str, why: str) -> RestoreError:
    return RestoreError(
        f"{store.uri(name)}, the bank update of a committed unit, is damaged: {why}. Bring it "
        "back from a backup or an older object version; or delete it, and the run goes on "
        "without this one update",
        why,
    )
