"""The Memory Prompt Bank as numbers: what a unit changed, and how changes are merged.

Letters: K entries, E entries that changed, P prompt rows, D width.

A bank is kept as `stored` rows and one factor: the row that the method sees is
`effective = decay * stored`. AdamW's decay of untouched rows only ever moves the factor, so a
unit's `Delta` holds no row that the unit did not retrieve, and an untouched row keeps its bits.

Deltas are added in stored units: `stored += delta / scale`, where `scale` is the factor under
which the delta was measured, and `decay *= delta.decay`. A sum and a product: the order of merges
matters only by rounding, n images move the bank by n updates whoever saw them, and a labeler that
applies its own delta gets the server's bits, whatever the others merged in between.

Everything here is a pure function on frozen values; arrays inside a `BankState` are read-only.
numpy only: no torch, no ray, no storage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Counts = NDArray[np.int64]

_RESCALE_BITS = 20
"""`decay` is kept in (2**-20, 1]: below that the stored rows take over the power of two."""


class BankUpdateError(ValueError):
    """An update that must not enter the bank. The bank is as it was before."""


@dataclass(frozen=True)
class BankState:
    """One bank. A row in effect is `float32(decay * stored)`; see the module's text."""

    keys_KD: Floats
    prompts_KPD: Floats
    usage_K: Counts
    """How often each entry was retrieved while adapting."""
    last_seq_K: Counts
    """The last merge that changed each entry; 0 for an entry that was never changed."""
    decay: float = 1.0
    rescales: int = 0
    """How often 2**-20 was moved from `decay` into the stored rows."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(K, P, D)."""
        entries, rows, width = self.prompts_KPD.shape
        return entries, rows, width


@dataclass(frozen=True)
class Delta:
    """What one unit changed in one bank: only the rows that it retrieved.

    `keys_ED` and `prompts_EPD` (float32) are in effective units: effective row after the unit
    minus `decay` times the effective row before it.
    """

    entries_E: NDArray[np.int32]
    """Indices of the changed entries, ascending."""
    keys_ED: Floats
    prompts_EPD: Floats
    usage_E: Counts
    """Retrievals by this unit, one number for each changed entry."""
    decay: float
    """The factor that the unit applied to every row, in (0, 1]."""
    scale: float
    """The bank's `decay` at the end of the unit, as the labeler saw it (before rescaling)."""
    rescales: int = 0
    """The bank's `rescales` as the labeler saw it."""

    @property
    def is_empty(self) -> bool:
        """True when merging it would change nothing."""
        return len(self.entries_E) == 0 and self.decay == 1.0


Update = Mapping[str, Delta]
"""What one unit changed, for each bank scope that it touched."""


def significant(update: Update) -> dict[str, Delta]:
    """`update` without the scopes that it does not change."""
    return {scope: change for scope, change in update.items() if not change.is_empty}


@dataclass(frozen=True)
class Banks:
    """All banks of a run after `seq` merges. A scope not in `states` is still `initial`."""

    initial: BankState
    states: Mapping[str, BankState] = field(default_factory=dict)
    seq: int = 0

    def state(self, scope: str) -> BankState:
        """The bank of `scope`."""
        return self.states.get(scope, self.initial)


def initial_state(*, entries: int, prompt_rows: int, width: int, seed: int | None) -> BankState:
    """The bank that every scope starts from: standard normal keys and prompts (METHOD.md).

    The numbers depend on `seed` and the shape alone, so nobody has to send them around. Without a
    seed all are zero: an empty bank, for entries that are sums.
    """
    if seed is None:
        return frozen(
            BankState(
                keys_KD=np.zeros((entries, width), np.float32),
                prompts_KPD=np.zeros((entries, prompt_rows, width), np.float32),
                usage_K=np.zeros(entries, np.int64),
                last_seq_K=np.zeros(entries, np.int64),
            )
        )
    source = hashlib.sha256(f"{seed}/bank".encode()).digest()
    random = np.random.Generator(np.random.PCG64(int.from_bytes(source, "big")))
    return frozen(
        BankState(
            keys_KD=random.standard_normal((entries, width), dtype=np.float32),
            prompts_KPD=random.standard_normal((entries, prompt_rows, width), dtype=np.float32),
            usage_K=np.zeros(entries, np.int64),
            last_seq_K=np.zeros(entries, np.int64),
        )
    )


def effective(state: BankState) -> tuple[Floats, Floats]:
    """Keys (K, D) and prompts (K, P, D) as the method sees them: fresh, writable float32."""
    return (
        (state.keys_KD.astype(np.float64) * state.decay).astype(np.float32),
        (state.prompts_KPD.astype(np.float64) * state.decay).astype(np.float32),
    )


def delta(
    before: BankState,
    keys_KD: NDArray[Any],
    prompts_KPD: NDArray[Any],
    usage_K: NDArray[Any],
    decay: float,
) -> Delta:
    """What a unit changed, from the bank it started on and the effective values it ended with.

    keys_KD, prompts_KPD: effective values after the unit, any float dtype; usage_K: counts after
    it; decay: the product of the weight-decay factors that it applied. Rows of entries that the
    unit never retrieved are not looked at: they only decayed. Raises `BankUpdateError` for
    shapes or counts that do not follow from `before`.
    """
    entries, rows, width = before.shape
    for name, got, want in (
        ("keys", keys_KD.shape, (entries, width)),
        ("prompts", prompts_KPD.shape, (entries, rows, width)),
        ("usage", usage_K.shape, (entries,)),
    ):
        if got != want:
            raise BankUpdateError(f"{name} have shape {got}; this bank's are {want}")
    retrieved_K = usage_K.astype(np.int64) - before.usage_K
    if (retrieved_K < 0).any():
        entry = int(np.flatnonzero(retrieved_K < 0)[0])
        raise BankUpdateError(
            f"the usage of entry {entry} fell from {before.usage_K[entry]} to {usage_K[entry]}: "
            "a unit can only add to it; measure against the state that the unit started from"
        )
    changed_E = np.flatnonzero(retrieved_K)
    scale = before.decay * decay
    return Delta(
        entries_E=changed_E.astype(np.int32),
        keys_ED=_difference(keys_KD[changed_E], before.keys_KD[changed_E], scale),
        prompts_EPD=_difference(prompts_KPD[changed_E], before.prompts_KPD[changed_E], scale),
        usage_E=retrieved_K[changed_E],
        decay=float(decay),
        scale=float(scale),
        rescales=before.rescales,
    )


def merge(state: BankState, change: Delta, seq: int) -> BankState:
    """The bank after `change`, as merge number `seq`.

    Raises `BankUpdateError` if the change does not fit the bank or a number is not finite.
    """
    decay, rescales = state.decay * change.decay, state.rescales
    check(change, state)
    while decay < 2.0**-_RESCALE_BITS:
        decay, rescales = decay * 2.0**_RESCALE_BITS, rescales + 1
    return add(rescaled(state, rescales), change, seq, decay)


def merge_all(banks: Banks, update: Update, seq: int) -> Banks:
    """All banks after one unit's `update`. Either every scope is merged or none."""
    merged = {scope: merge(banks.state(scope), change, seq) for scope, change in update.items()}
    return replace(banks, states={**banks.states, **merged}, seq=max(banks.seq, seq))


def replay(banks: Banks, merges: Iterable[tuple[int, Update]]) -> Banks:
    """All banks after `merges`, (seq, update) in the order given."""
    for seq, update in merges:
        banks = merge_all(banks, update, seq)
    return banks


def check(change: Delta, state: BankState) -> None:
    """Raise `BankUpdateError`, saying what is wrong, unless `change` can enter `state`."""
    entries, rows, width = state.shape
    changed = len(change.entries_E)
    for name, array, shape, dtype in (
        ("entries", change.entries_E, (changed,), np.int32),
        ("keys", change.keys_ED, (changed, width), np.float32),
        ("prompts", change.prompts_EPD, (changed, rows, width), np.float32),
        ("usage", change.usage_E, (changed,), np.int64),
    ):
        if array.shape != shape or array.dtype != dtype:
            raise BankUpdateError(
                f"{name} of the update are {array.dtype}{array.shape}; "
                f"this bank takes {np.dtype(dtype)}{shape}"
            )
    entries_E = change.entries_E
    if changed and not (
        entries_E[0] >= 0 and entries_E[-1] < entries and (np.diff(entries_E) > 0).all()
    ):
        raise BankUpdateError(
            f"entries of the update must ascend within 0..{entries - 1}; they are {entries_E}"
        )
    if (change.usage_E < 0).any():
        raise BankUpdateError("the update takes usage counts away; a unit can only add to them")
    if not (0.0 < change.decay <= 1.0 and 0.0 < change.scale <= 1.0 and change.rescales >= 0):
        raise BankUpdateError(
            f"decay {change.decay!r} and scale {change.scale!r} of the update must be in (0, 1], "
            f"rescales {change.rescales!r} must be 0 or more"
        )
    _require_finite(change.keys_ED, change.prompts_EPD, entries_E)


def _difference(after: NDArray[Any], stored: Floats, scale: float) -> Floats:
    # Against the unrounded effective row, so that the rounding of `effective` is not carried on.
    return (after.astype(np.float64) - stored.astype(np.float64) * scale).astype(np.float32)


def add(state: BankState, change: Delta, seq: int, decay: float) -> BankState:
    """`state`, `rescaled` beforehand, with the rows of `change` added and `decay` set."""
    rows_E = change.entries_E
    power = 2.0 ** (_RESCALE_BITS * (change.rescales - state.rescales))
    keys_KD, prompts_KPD = state.keys_KD.copy(), state.prompts_KPD.copy()
    usage_K, last_seq_K = state.usage_K.copy(), state.last_seq_K.copy()
    with np.errstate(over="ignore"):
        for stored, added in ((keys_KD, change.keys_ED), (prompts_KPD, change.prompts_EPD)):
            stored[rows_E] = stored[rows_E] + added.astype(np.float64) / change.scale * power
    _require_finite(keys_KD[rows_E], prompts_KPD[rows_E], rows_E)
    usage_K[rows_E] += change.usage_E
    last_seq_K[rows_E] = seq
    return frozen(
        BankState(keys_KD, prompts_KPD, usage_K, last_seq_K, decay=decay, rescales=state.rescales)
    )


def rescaled(state: BankState, rescales: int) -> BankState:
    """The same effective values with `rescales` raised: a power of two, so it rounds nothing.

    (But for rows below float32's normal range, whose effective values are below it as well.)
    """
    for _ in range(rescales - state.rescales):
        state = frozen(
            replace(
                state,
                keys_KD=state.keys_KD * np.float32(2.0**-_RESCALE_BITS),
                prompts_KPD=state.prompts_KPD * np.float32(2.0**-_RESCALE_BITS),
                decay=state.decay * 2.0**_RESCALE_BITS,
                rescales=state.rescales + 1,
            )
        )
    return state


def _require_finite(keys_ED: Floats, prompts_EPD: Floats, entries_E: NDArray[Any]) -> None:
    for name, rows in (("key", keys_ED), ("prompt", prompts_EPD)):
        finite_E = np.isfinite(rows).all(axis=tuple(range(1, rows.ndim)))
        if not finite_E.all():
            entry = int(entries_E[int(np.argmin(finite_E))])
            raise BankUpdateError(
                f"the update makes the {name} of entry {entry} infinite or not a number; it was "
                "refused and the bank is unchanged (check the learning rate and the precision)"
            )


def frozen(state: BankState) -> BankState:
    """`state` with its arrays made read-only."""
    for array in (state.keys_KD, state.prompts_KPD, state.usage_K, state.last_seq_K):
        array.flags.writeable = False
    return state
