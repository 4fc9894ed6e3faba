"""Bringing the bank of an output back to an earlier state: `mint-stream rollback`.

A rollback is a checkpoint like any other, with the next number, that says what it brought back. It
holds every committed merge so far, so none of them is replayed on it; labels stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

from mint_stream.bank import checkpoint
from mint_stream.bank.checkpoint import Checkpoint
from mint_stream.bank.log import RestoreError
from mint_stream.config import ConfigError
from mint_stream.method.bank_state import Banks, BankState
from mint_stream.output.lease import Lease
from mint_stream.output.settings import Settings
from mint_stream.store.errors import StorageError
from mint_stream.store.store import Store
from mint_stream.upkeep.verify.bank import banks_in
from mint_stream.upkeep.verify.findings import Findings
from mint_stream.upkeep.verify.settings import check_settings


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """What was done."""

    seq: int
    """Merges that the bank has seen; it goes on counting from here."""
    to: int
    """Seq of the bank that is back; 0 for the start."""
    scopes: tuple[str, ...]
    """Banks that were brought back."""
    checkpoint: str


def rollback(output: str, to: int, scope: str | None = None) -> Rollback:
    """Bring the bank back to what it was after merge `to`, or to its start with 0.

    scope: the bank of one camera; all banks without. Raises `ConfigError` if there is no such
    checkpoint or bank, `LeaseHeld` if a run is writing, and `StorageError` if the bank cannot be
    read.
    """
    store = Store(output)
    findings = Findings()
    settings = check_settings(store, findings)
    if settings is None:
        raise ConfigError(f"{output} is no output that can be read: {findings.found[0]}")
    lease = Lease(store)
    lease.acquire()
    try:
        return _rollback(store, settings, to, scope)
    except RestoreError as error:
        raise StorageError(str(error)) from error
    finally:
        lease.release()


def _rollback(store: Store, settings: Settings, to: int, scope: str | None) -> Rollback:
    kept = list(checkpoint.sound(store, lambda _, data: banks_in(data, settings)))
    if not kept:
        raise ConfigError(f"{store.url} has no sound bank checkpoint: nothing to roll back to")
    restored = checkpoint.restore(store, kept[0][1].initial, settings.identity)
    now = restored.banks()
    then = _banks_at(kept, to, now.initial)
    scopes = sorted(now.states) if scope is None else [scope]
    if not set(scopes) <= now.states.keys():
        raise ConfigError(
            f"scope is {scope!r}; there are banks of {', '.join(sorted(now.states)) or 'nobody'}"
        )
    states = {name: then.state(name) if name in scopes else now.states[name] for name in now.states}
    saved = checkpoint.save(
        store,
        Banks(now.initial, states, now.seq),
        covered=restored.covered | {str(name) for name, _ in restored.merges},
        number=restored.number + 1,
        identity=settings.identity,
        rolled_back_to=then.seq,
    )
    return Rollback(seq=now.seq, to=then.seq, scopes=tuple(scopes), checkpoint=saved.name)


def _banks_at(kept: list[tuple[Checkpoint, Banks]], to: int, initial: BankState) -> Banks:
    if to == 0:
        return Banks(initial)
    for about, banks in kept:
        if about.seq == to:
            return banks
    there = ", ".join(str(seq) for seq in sorted({about.seq for about, _ in kept}))
    raise ConfigError(f"seq is {to}; checkpoints are kept of {there}, and 0 is the bank's start")
