"""Bank checkpoints: written, kept, and restored together with the log of what came after.

    bank/checkpoints/<seq>-<digest>.parquet    the banks after exactly the committed merges
    bank/checkpoints/<seq>-<digest>.json       written after it: without it there is no checkpoint

A log object is removed only when every checkpoint that is kept holds it, so that any of them can
be fallen back to.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from mint_stream.bank.exchange import banks_digest
from mint_stream.bank.files import BankFileError, LogName, read_bank, seq_text, write_bank
from mint_stream.bank.log import RestoreError as RestoreError
from mint_stream.bank.log import each, log_since
from mint_stream.method.bank_state import Banks, BankState, Update, replay
from mint_stream.output import schema
from mint_stream.output.settings import differences
from mint_stream.store.errors import ObjectMissing, StorageError
from mint_stream.store.store import Store
from mint_stream.store.types import ObjectInfo

log = logging.getLogger(__name__)

FOLDER = "bank/checkpoints/"
KEPT = 3
"""Checkpoints on the store; more would only lengthen the log."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The JSON beside a checkpoint's Parquet."""

    name: str
    """Without its suffix."""
    number: int
    """Counts the checkpoints of an output; the newest has the highest."""
    seq: int
    decay: dict[str, float]
    """For each scope, the factor between stored and effective rows."""
    identity: dict[str, Any]
    """What the bank belongs to: model, method, and the digest of the bank that it started from."""
    parquet_sha256: str
    covered: tuple[str, ...]
    """Log objects that the checkpoint holds and that may still be on the store."""
    rolled_back_to: int | None = None
    """Seq of the bank that a rollback brought back; None where the bank follows from the log."""

    def to_json(self) -> bytes:
        """With a hash over itself."""
        values = asdict(self)
        return json.dumps({**values, "sha256": _hash_of(values)}, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Checkpoint:
        """Raises `ValueError` unless `data` is what `to_json` gave."""
        values = json.loads(data)
        if not isinstance(values, dict) or values.pop("sha256", None) != _hash_of(values):
            raise ValueError("its hash does not match its content")
        try:
            return cls(**{**values, "covered": tuple(values["covered"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"it has other fields than this version's ({error})") from error


@dataclass(frozen=True, kw_only=True)
class RestoreResult:
    """The bank as it is on the store."""

    checkpoint: Banks
    """From the newest sound checkpoint; the initial banks where there is none."""
    merges: list[tuple[LogName, Update]]
    """Committed merges since, in the order of their log names."""
    covered: frozenset[str]
    """Log objects on the store that must never be replayed on `checkpoint`."""
    number: int
    """Of the newest checkpoint on the store, sound or not; 0 where there is none."""
    notes: list[str] = field(default_factory=list)
    """What a person should know: what was damaged and what was used instead."""

    def banks(self) -> Banks:
        """The banks after exactly the committed units."""
        return replay(self.checkpoint, ((name.seq, update) for name, update in self.merges))


def save(
    store: Store,
    banks: Banks,
    *,
    covered: Iterable[str],
    number: int,
    identity: Mapping[str, Any],
    rolled_back_to: int | None = None,
) -> Checkpoint:
    """Write checkpoint `number`. Once this returns it is down and complete.

    banks: committed merges only; covered: their log objects that may be on the store; identity:
    what the bank belongs to, JSON values. Raises `StorageError`; a checkpoint that was cut off
    does no harm.
    """
    data = write_bank(banks)
    sha256 = hashlib.sha256(data).hexdigest()
    checkpoint = Checkpoint(
        name=f"{FOLDER}{seq_text(banks.seq)}-{sha256[:12]}",
        number=number,
        seq=banks.seq,
        decay={scope: state.decay for scope, state in sorted(banks.states.items())},
        identity=_with_start(identity, banks.initial),
        parquet_sha256=sha256,
        covered=tuple(sorted(covered)),
        rolled_back_to=rolled_back_to,
    )
    store.write(f"{checkpoint.name}.parquet", data)
    store.write(f"{checkpoint.name}.json", checkpoint.to_json())
    return checkpoint


def retire(store: Store) -> list[str]:
    """Keep the newest `KEPT` checkpoints; remove older ones and log objects that all kept hold.

    Gives the names of log objects that are gone now. A deletion that fails is logged and left to
    the next time: it never endangers what is kept.
    """
    found = find(store)
    if len(found.sound) < KEPT:
        return []
    kept, old = found.sound[:KEPT], found.sound[KEPT:]
    removable = frozenset.intersection(*(frozenset(checkpoint.covered) for checkpoint in kept))
    stale = [checkpoint.name for checkpoint in old]
    stale += [name for name in (*found.damaged, *found.unfinished) if name < kept[-1].name]
    # The JSON goes first: a Parquet without one is not a checkpoint.
    for suffix in (".json", ".parquet"):
        each(lambda name: _delete(store, name), [name + suffix for name in stale])
    names = sorted(removable)
    gone = each(lambda name: _delete(store, name), names)
    return [name for name, is_gone in zip(names, gone, strict=True) if is_gone]


def restore(store: Store, initial: BankState, identity: Mapping[str, Any]) -> RestoreResult:
    """The banks as they are after exactly the committed units of `store`.

    identity: as given to `save`. Raises `RestoreError` if the output belongs to another model,
    method or seed, if no checkpoint is sound although log objects were removed, or if the log
    object of a committed unit is damaged; `StorageError` if the store cannot be read.
    """
    found = find(store)
    notes = [f"checkpoint {name} is damaged: its JSON is not sound" for name in found.damaged]
    mine = _with_start(identity, initial)
    newest_banks = newest_sound(
        store,
        lambda _, data: read_bank(data, initial),
        found=found,
        check=lambda checkpoint: _check_identity(checkpoint, mine),
        damaged=lambda about, why: notes.append(f"checkpoint {about.name} is damaged: {why}"),
    )
    used, banks = newest_banks or (None, Banks(initial))
    written = len(found.sound) + len(found.damaged)
    if used is None and written >= KEPT:
        raise RestoreError(
            f"none of the {written} bank checkpoints in {store.uri(FOLDER)} is "
            f"sound, and the log from before them was removed ({'; '.join(notes)}). Bring one "
            "back from a backup or an older object version; or, to go on with a fresh bank and "
            f"the labels as they are, delete everything in {store.uri('bank')}"
        )
    if notes:
        since = f"checkpoint {used.name}" if used else "an empty bank"
        notes.append(f"continuing from {since} and the log since then")
    merges, covered = log_since(store, used.seq if used else 0, used.covered if used else (), notes)
    for note in notes:
        log.warning("%s", note)
    newest = max((checkpoint.number for checkpoint in found.sound), default=0)
    return RestoreResult(
        checkpoint=banks, merges=merges, covered=covered, number=newest, notes=notes
    )


@dataclass
class Found:
    """What lies in the folder of checkpoints."""

    sound: list[Checkpoint] = field(default_factory=list)
    """With a sound JSON, newest first."""
    damaged: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    """A Parquet alone: writing was cut off, which is no damage."""


def find(store: Store, listed: Iterable[ObjectInfo] | None = None) -> Found:
    """The checkpoints on the store, by what their JSON says. Raises `StorageError`.

    listed: what is in their folder, where that is known.
    """
    suffixes: dict[str, set[str]] = defaultdict(set)
    for info in store.list(FOLDER) if listed is None else listed:
        stem, _, suffix = info.name.rpartition(".")
        suffixes[stem].add(suffix)
    found = Found()
    for stem in sorted(suffixes):
        if "json" not in suffixes[stem]:
            found.unfinished.append(stem)
            continue
        try:
            found.sound.append(Checkpoint.from_json(store.read(f"{stem}.json")))
        except ObjectMissing:
            continue  # retired since it was listed
        except ValueError:
            found.damaged.append(stem)
    found.sound.sort(key=lambda checkpoint: (checkpoint.number, checkpoint.name), reverse=True)
    return found


Loaded = TypeVar("Loaded")


def sound(
    store: Store,
    load: Callable[[Checkpoint, bytes], Loaded],
    *,
    found: Found | None = None,
    check: Callable[[Checkpoint], None] = lambda _: None,
    damaged: Callable[[Checkpoint, str], None] = lambda _, __: None,
) -> Iterator[tuple[Checkpoint, Loaded]]:
    """The sound checkpoints of `store`, newest first, with what `load` makes of their Parquet.

    Who wants the bank of an output asks here: a checkpoint counts by its number (a rollback is
    newer than that of the same seq before it), and if its Parquet is what its JSON says.

    found: from `find`, where it was asked already; check: raises for a checkpoint that must not be
    passed over; damaged: told of those that are, and why. A `load` that finds damage raises
    `BankFileError`.
    """
    for checkpoint in (found or find(store)).sound:
        check(checkpoint)
        try:
            loaded = load(checkpoint, _parquet(store, checkpoint))
        except ObjectMissing:
            damaged(checkpoint, "it is missing beside its JSON")
        except BankFileError as error:
            damaged(checkpoint, str(error))
        else:
            yield checkpoint, loaded


def newest_sound(
    store: Store, load: Callable[[Checkpoint, bytes], Loaded], **how: Any
) -> tuple[Checkpoint, Loaded] | None:
    """The first of `sound`, if there is one."""
    return next(sound(store, load, **how), None)


def _parquet(store: Store, checkpoint: Checkpoint) -> bytes:
    data = store.read(f"{checkpoint.name}.parquet")
    if hashlib.sha256(data).hexdigest() != checkpoint.parquet_sha256:
        raise BankFileError("its content does not match the hash that was written with it")
    return data


def _with_start(identity: Mapping[str, Any], initial: BankState) -> dict[str, Any]:
    return {**identity, "start": start_digest(initial)}


def start_digest(initial: BankState) -> str:
    """What a checkpoint's identity says about the bank that it started from."""
    return banks_digest(Banks(initial, {"": initial}))


def _check_identity(checkpoint: Checkpoint, identity: Mapping[str, Any]) -> None:
    found = [
        f"{name}: {theirs!r} there, {mine!r} now"
        for name, theirs, mine in differences(checkpoint.identity, identity)
    ]
    if found:
        raise RestoreError(
            f"the bank checkpoint {checkpoint.name} belongs to another run ("
            + "; ".join(found)
            + "); use the settings it was made with, or another output"
        )


def _delete(store: Store, name: str) -> bool:
    try:
        store.delete(name)
    except StorageError as error:
        log.warning("could not delete %s, which is no longer needed: %s", name, error)
        return False
    return True


def _hash_of(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def read_bank_usage(output: str) -> pa.Table:
    """How often each bank entry was retrieved, from the newest sound checkpoint of `output`.

    Columns scope, entry and usage as in `schema.BANK`; empty where there is no checkpoint.
    """
    fields = ["scope", "entry", "usage"]

    def usage(_: Checkpoint, data: bytes) -> pa.Table:
        return pq.read_table(io.BytesIO(data), columns=fields)

    found = newest_sound(Store(output), usage)
    return found[1] if found else schema.BANK.empty_table().select(fields)
