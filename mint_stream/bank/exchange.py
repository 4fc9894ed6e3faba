"""What travels between the ledger and the replicas of the banks: answers, patches, digests.

Letters as in `bank_state`. A labeler keeps a replica; the ledger sends it the rows that others
changed, and the labeler adds its own delta itself (`adopt`).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mint_stream.method.bank_state import (
    Banks,
    BankState,
    Counts,
    Delta,
    Floats,
    Update,
    add,
    frozen,
    rescaled,
    significant,
)


@dataclass(frozen=True)
class Patch:
    """Stored rows of a bank, whole, and its factor: what brings a replica up to date."""

    entries_E: NDArray[np.int32]
    keys_ED: Floats
    prompts_EPD: Floats
    usage_E: Counts
    last_seq_E: Counts
    decay: float
    rescales: int


Outcome = Literal["merged", "repeated", "kept", "committed", "empty"]
"""What a merge came to: added; added before, the same; another attempt's merge stands until the
commit decides; the unit is committed already; nothing to add."""


@dataclass(frozen=True)
class Restarted:
    """The answer to a call that was meant for a ledger that is no more: `rejoin`, then repeat."""


@dataclass(frozen=True)
class Fetched:
    """One whole bank, and the version that a replica made of it has."""

    version: int
    seq: int
    state: BankState


@dataclass(frozen=True)
class HeldMerge:
    """A merge of which a labeler does not know yet that it survives a restart of the ledger."""

    name: str
    update: Update


@dataclass(frozen=True)
class Position:
    """Where a labeler starts: the ledger it speaks to and the merges that the bank has seen."""

    incarnation: str
    seq: int
    held: tuple[HeldMerge, ...] = ()
    """Uncommitted merges, for the labeler to hold: their own labeler may be gone."""


@dataclass(frozen=True)
class MergeAnswer:
    """What became of a merge, and what brings the labeler's replicas up to date."""

    outcome: Outcome
    name: str
    """Where the unit's update is to be logged; "" where there is nothing to log."""
    seq: int
    """Merges that the replicas have seen after this answer."""
    version: int
    """Of the replicas after this answer."""
    patches: Mapping[str, Patch]
    """Per scope the rows that changed since the replica's version; without the labeler's own if
    the outcome is `merged`: those it adds itself."""
    settled: frozenset[str]
    """Of the merges that the labeler holds, those it need not hold any longer."""


def patch(state: BankState, entries_E: NDArray[Any]) -> Patch:
    """The stored rows `entries_E` of `state` and its factor, as copies."""
    return Patch(
        entries_E=entries_E.astype(np.int32),
        keys_ED=state.keys_KD[entries_E],
        prompts_EPD=state.prompts_KPD[entries_E],
        usage_E=state.usage_K[entries_E],
        last_seq_E=state.last_seq_K[entries_E],
        decay=state.decay,
        rescales=state.rescales,
    )


def adopt(state: BankState, others: Patch, own: Delta | None = None, seq: int = 0) -> BankState:
    """A replica brought up to date: its `own` merge `seq` applied here, `others`' rows taken over.

    Gives the sender's bits when `others` holds every row that differs for another reason than
    `own`. Rows that both changed are the sender's.
    """
    state = rescaled(state, max(others.rescales, state.rescales))
    state = state if own is None else add(state, own, seq, others.decay)
    if len(others.entries_E) == 0:
        return replace(state, decay=others.decay, rescales=others.rescales)
    rows_E = others.entries_E
    keys_KD, prompts_KPD = state.keys_KD.copy(), state.prompts_KPD.copy()
    usage_K, last_seq_K = state.usage_K.copy(), state.last_seq_K.copy()
    keys_KD[rows_E], prompts_KPD[rows_E] = others.keys_ED, others.prompts_EPD
    usage_K[rows_E], last_seq_K[rows_E] = others.usage_E, others.last_seq_E
    return frozen(
        BankState(
            keys_KD,
            prompts_KPD,
            usage_K,
            last_seq_K,
            decay=others.decay,
            rescales=others.rescales,
        )
    )


def differing_entries(a: BankState, b: BankState) -> NDArray[np.int64]:
    """Entries of which any bit differs between two states, ascending."""
    if a is b:
        return np.zeros(0, np.int64)
    differs_K = (a.usage_K != b.usage_K) | (a.last_seq_K != b.last_seq_K)
    for x, y in ((a.keys_KD, b.keys_KD), (a.prompts_KPD, b.prompts_KPD)):
        bits_a, bits_b = (np.ascontiguousarray(v).view(np.uint32) for v in (x, y))
        differs_K |= (bits_a != bits_b).any(axis=tuple(range(1, x.ndim)))
    return np.flatnonzero(differs_K)


def update_digest(update: Update) -> str:
    """sha256 (hex) over everything that `update` says, independent of the scopes' order."""
    content = hashlib.sha256()
    for scope, d in sorted(significant(update).items()):
        _feed(content, scope, d.decay, d.scale, d.rescales)
        _feed_arrays(content, d.entries_E, d.keys_ED, d.prompts_EPD, d.usage_E)
    return content.hexdigest()


def banks_digest(banks: Banks) -> str:
    """sha256 (hex) over every bit of `banks`, but for scopes that are still initial."""
    content = hashlib.sha256(struct.pack("<q", banks.seq))
    for scope in sorted(banks.states):
        s = banks.states[scope]
        _feed(content, scope, s.decay, 1.0, s.rescales)
        _feed_arrays(content, s.keys_KD, s.prompts_KPD, s.usage_K, s.last_seq_K)
    return content.hexdigest()


def _feed(content: Any, scope: str, decay: float, scale: float, rescales: int) -> None:
    name = scope.encode()
    content.update(struct.pack("<q", len(name)) + name)
    content.update(struct.pack("<ddq", decay, scale, rescales))


def _feed_arrays(content: Any, *arrays: NDArray[Any]) -> None:
    for array in arrays:
        content.update(struct.pack(f"<{array.ndim + 1}q", array.ndim, *array.shape))
        content.update(np.ascontiguousarray(array).tobytes())


@dataclass(frozen=True, kw_only=True)
class BankStatus:
    """How the bank server is doing."""

    pid: int
    incarnation: str
    seq: int
    """Merges that the live bank has seen."""
    durable_seq: int
    """Merges, all of them committed, that the next checkpoint will hold."""
    pending: int
    """Merges whose units are not committed."""
    waiting: int
    """Committed merges that wait for an earlier one before a checkpoint can hold them."""
    checkpoint_seq: int | None
    """Of the last checkpoint that is known to be down; None if it is damaged."""
    checkpoint_error: str | None
    """Why the latest checkpoint failed; None if it did not."""
    notes: tuple[str, ...]
    """What restoring found that a person should know."""
