"""Which merges the bank holds, which of them are safe, and in what order: in memory, no ray.

The ledger keeps two versions of the banks. `durable` holds committed units only, a prefix of the
merges in the order of their log names (seq first). `live` is `durable` plus every later merge,
committed or not, in the same order; it is what labelers see. So whatever dies, a checkpoint of
`durable` plus the log objects of committed units after it is the bank, bit for bit.

The allowed order of calls, for each labeler and each unit:

    position = pull(unit)                    # on the first unit after the labeler started, and on
                                             # each one that was under way at that time
    for unit in units:
        state = fetch(scope)                 # once for each scope; later rows come with merges
        ...label the unit on its replica...
        answer = merge(unit, update)         # before the unit's labels leave the labeler
        ...rejects, log object, labels are written, in this order...
        committed(unit, log name)            # only after the labels object exists

- `merge` is idempotent by unit: a unit that is in the ledger, or was committed, is not merged
  again. A retry's log object takes the seq of the first attempt, and the commit says which of the
  two counts.
- `pull(unit)` is the way of saying "an earlier attempt of mine at `unit` died with me": its merge
  is taken out, and with one labeler bank and seq are again what the first attempt saw.
- A labeler that is answered `Restarted` calls `rejoin` with the merges that it has not yet been
  told are settled, fetches again and repeats its call. One that starts takes over the merges that
  are under way, so that they are lost to the bank only if ledger and labelers die together; then
  they come back with their commits.
- With several labelers calls may interleave in any way. With one, commits must come in the order
  of the merges: only then can a run that was cut off continue bit for bit.
- A unit that changed nothing (an empty update) takes no seq and has no log object.

After a restart commits from before may still be under way. Until `settle` is called nothing is
folded into `durable`, so that such a commit finds its place in the order.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mint_stream.bank.exchange import (
    Fetched,
    HeldMerge,
    MergeAnswer,
    Outcome,
    Position,
    Restarted,
    differing_entries,
    patch,
)
from mint_stream.bank.files import LogName
from mint_stream.method.bank_state import Banks, Counts, Update, merge_all, replay, significant


class BankError(RuntimeError):
    """The bank cannot do what was asked. The message says what to do."""


@dataclass(kw_only=True)
class LoggedMerge:
    """A merge in the ledger that is not in `durable` yet."""

    name: LogName
    update: Update | None
    """None where it was let go for memory: it is committed, so it is on the store."""
    committed: bool = False

    @property
    def size_bytes(self) -> int:
        """Memory that the update takes here."""
        deltas = (self.update or {}).values()
        return sum(d.keys_ED.nbytes + d.prompts_EPD.nbytes for d in deltas)


class BankLedger:
    """The banks of a run and the merges under way. Not thread-safe: the owner holds a lock.

    Args:
        durable: the banks to start from.
        read_log: the update in a log object, by name; None where there is no such object.
        merges: committed merges to replay on top of `durable`, as `checkpoint.restore` finds them.
        covered: names of log objects that `durable` holds and that may be on the store.
        settled: False after a restart, when commits from before may still arrive.
        in_order: there is one labeler, and its units are committed in the order of their merges.
        hold_bytes: committed updates beyond this are let go and read again when needed.
    """

    def __init__(
        self,
        durable: Banks,
        read_log: Callable[[str], Update | None],
        *,
        merges: Iterable[tuple[LogName, Update]] = (),
        covered: Iterable[str] = (),
        settled: bool = True,
        in_order: bool = False,
        hold_bytes: int = 512 * 2**20,
    ) -> None:
        self.incarnation = secrets.token_hex(8)
        self.durable = durable
        self._read_log = read_log
        self._covered = set(covered)
        self._settled = settled
        self._in_order = in_order
        self._hold_bytes = hold_bytes
        self._held_bytes = 0
        self._merges: list[LoggedMerge] = []
        self._of_unit: dict[str, LoggedMerge] = {}
        self._done = {LogName.parse(name).unit for name in self._covered}
        self._orphans: dict[str, set[str]] = {}
        self._folded_to: LogName | None = None
        self._version = 0
        self._changed: dict[str, Counts] = {}
        self.live = durable
        for name, update in sorted(merges, key=lambda merge: merge[0]):
            self._done.add(name.unit)
            self._insert(LoggedMerge(name=name, update=update, committed=True))
        self._fold()

    @property
    def pending(self) -> list[LogName]:
        """Merges that are not committed, in order."""
        return [merge.name for merge in self._merges if not merge.committed]

    @property
    def waiting(self) -> int:
        """Committed merges that are not in `durable` yet."""
        return sum(merge.committed for merge in self._merges)

    def scopes(self) -> frozenset[str]:
        """Those that have a bank of their own by now, committed or not."""
        return frozenset(self.live.states)

    def pull(self, unit: str) -> Position:
        """Start a labeler on `unit`. An uncommitted merge of `unit` is taken out.

        In order, the ones after it are taken out as well: they died with it, or come back with
        their commits.
        """
        if self._is_pending(unit):
            since = self._of_unit[unit].name
            later = {name.unit for name in self.pending if name >= since}
            self._take_out(later if self._in_order else {unit})
            self._fold()
        held = [HeldMerge(str(m.name), self._update(m)) for m in self._merges if not m.committed]
        return Position(self.incarnation, self.live.seq, tuple(held))

    def fetch(self, incarnation: str, scope: str) -> Fetched | Restarted:
        """The whole live bank of `scope`."""
        if incarnation != self.incarnation:
            return Restarted()
        return Fetched(self._version, self.live.seq, self.live.state(scope))

    def merge(
        self,
        incarnation: str,
        unit: str,
        update: Update,
        versions: Mapping[str, int],
        held: Sequence[str] = (),
    ) -> MergeAnswer | Restarted:
        """Add `update` of `unit` and say what changed since `versions` (per scope held).

        held: names of the merges that the labeler holds. Raises `BankUpdateError`, and changes
        nothing, for an update that does not fit or is not finite.
        """
        if incarnation != self.incarnation:
            return Restarted()
        update = _own(update)
        known = self._of_unit.get(unit)
        if known is not None and known.name.seq <= self.durable.seq and not known.committed:
            # Merged before a restart and overtaken since: this attempt gets a place of its own.
            self._take_out({unit})
            known = None
        outcome: Outcome = "merged"
        name: LogName | None = None
        if unit in self._done:
            outcome = "committed"
        elif not update:
            outcome = "empty"
        elif known is None:
            name = LogName.of(self.live.seq + 1, unit, update)
        else:
            name = LogName.of(known.name.seq, unit, update)
            outcome = "repeated" if name == known.name else "kept"
        others = self._since(versions)
        if outcome == "merged" and name is not None:
            self._insert(LoggedMerge(name=name, update=update))
        elif outcome == "kept":
            self._orphans.setdefault(unit, set()).add(str(name))
        return MergeAnswer(
            outcome=outcome,
            name="" if name is None else str(name),
            seq=self.live.seq,
            version=self._version,
            patches={scope: patch(self.live.state(scope), rows) for scope, rows in others.items()},
            settled=frozenset(h for h in held if not self._is_pending(LogName.parse(h).unit)),
        )

    def rejoin(self, held: Iterable[HeldMerge]) -> Position:
        """Take in merges that a labeler made before a restart, unless they are known here.

        Of two attempts at a unit the first counts, as it did before, until the commit decides.
        """
        for merge in sorted(held, key=lambda merge: LogName.parse(merge.name).seq):
            name = LogName.parse(merge.name)
            if name.unit not in self._done and name.unit not in self._of_unit:
                self._insert(LoggedMerge(name=name, update=_own(merge.update)))
        return Position(self.incarnation, self.live.seq)

    def committed(self, unit: str, log_name: str) -> bool:
        """Note that the labels of `unit` are on the store and refer to `log_name` ("" for none).

        False if the merge belongs before others that are folded already: the caller must restore
        from the store, as after a restart. Raises `BankError` if the log object is not there.
        """
        if unit in self._done:
            return True
        merge = self._of_unit.get(unit)
        counts = LogName.parse(log_name) if log_name and log_name not in self._covered else None
        if counts is not None and (merge is None or merge.name != counts):
            # Merged before a restart, or by another attempt than the one that the ledger knows.
            update = self._read_committed(counts)
            merge = None if update is None else LoggedMerge(name=counts, update=update)
            counts = None if merge is None else counts
        if counts is not None and self._folded_to is not None and counts < self._folded_to:
            return False
        if counts is None or merge is not self._of_unit.get(unit):
            self._take_out({unit})
        if counts is not None and merge is not None:
            if unit not in self._of_unit:
                self._insert(merge)
            self._commit(merge)
        self._done.add(unit)
        self._covered |= self._orphans.pop(unit, set()) - {log_name}
        self._fold()
        return True

    def settle(self) -> None:
        """Nothing from before a restart is under way any more: fold from now on."""
        self._settled = True
        self._fold()

    def drop_pending(self) -> None:
        """Take out every merge that is not committed: their labelers are gone."""
        self._take_out({name.unit for name in self.pending})
        self._fold()

    def snapshot(self) -> tuple[Banks, frozenset[str]]:
        """What a checkpoint holds: `durable`, and the log objects that it covers."""
        return self.durable, frozenset(self._covered)

    def forget(self, names: Iterable[str]) -> None:
        """These log objects are no longer on the store."""
        self._covered.difference_update(names)

    def _is_pending(self, unit: str) -> bool:
        merge = self._of_unit.get(unit)
        return merge is not None and not merge.committed

    def _since(self, versions: Mapping[str, int]) -> dict[str, NDArray[np.int64]]:
        """The entries of each scope that changed after the version given for it."""
        never = np.full(1, -1, np.int64)
        return {
            scope: np.flatnonzero(self._changed.get(scope, never) > version)
            for scope, version in versions.items()
        }

    def _insert(self, merge: LoggedMerge) -> None:
        """Put `merge` where its name belongs, and into `live`. Nothing changes if it is refused."""
        if self._merges and merge.name < self._merges[-1].name:
            self._rearrange(sorted([*self._merges, merge], key=lambda m: m.name))
            return
        update = self._update(merge)
        self.live = merge_all(self.live, update, merge.name.seq)
        self._merges.append(merge)
        self._of_unit[merge.name.unit] = merge
        self._held_bytes += merge.size_bytes
        self._version += 1
        for scope, change in update.items():
            self._mark(scope, change.entries_E)

    def _take_out(self, units: set[str]) -> None:
        """Remove the merges of `units`, as if they had never been made."""
        out = [merge for merge in self._merges if merge.name.unit in units]
        for merge in out:
            # Its log object may be on the store; once the unit is committed it is superfluous.
            self._orphans.setdefault(merge.name.unit, set()).add(str(merge.name))
        if out:
            self._rearrange([merge for merge in self._merges if merge.name.unit not in units])

    def _rearrange(self, merges: list[LoggedMerge]) -> None:
        """Have `merges`, in this order, on top of `durable`; note every row that changes by it."""
        before = self.live
        self.live = replay(self.durable, ((m.name.seq, self._update(m)) for m in merges))
        self._merges = merges
        self._of_unit = {merge.name.unit: merge for merge in merges}
        self._held_bytes = sum(merge.size_bytes for merge in merges)
        self._version += 1
        for scope in {*before.states, *self.live.states}:
            old, new = before.state(scope), self.live.state(scope)
            moved = old.rescales != new.rescales
            self._mark(scope, slice(None) if moved else differing_entries(old, new))

    def _mark(self, scope: str, entries: NDArray[np.integer] | slice) -> None:
        if scope not in self._changed:
            self._changed[scope] = np.full(self.durable.initial.shape[0], -1, np.int64)
        self._changed[scope][entries] = self._version

    def _commit(self, merge: LoggedMerge) -> None:
        merge.committed = True
        if self._held_bytes > self._hold_bytes:
            self._held_bytes -= merge.size_bytes
            merge.update = None

    def _fold(self) -> None:
        """Move the committed merges at the head of the order into `durable`."""
        count = 0
        while count < len(self._merges) and self._merges[count].committed:
            count += 1
        if count == 0 or not self._settled:
            return
        folded, self._merges = self._merges[:count], self._merges[count:]
        if self._merges:
            updates = ((merge.name.seq, self._update(merge)) for merge in folded)
            self.durable = replay(self.durable, updates)
        else:
            self.durable = self.live
        self._folded_to = folded[-1].name
        for merge in folded:
            self._held_bytes -= merge.size_bytes
            self._covered.add(str(merge.name))
            del self._of_unit[merge.name.unit]

    def _update(self, merge: LoggedMerge) -> Update:
        if merge.update is not None:
            return merge.update
        update = self._read_log(str(merge.name))
        if update is None:
            raise BankError(
                f"{merge.name}, which the bank still needs, is gone from the store: bring it back "
                "(from a backup or an older object version) and start the run again"
            )
        return update

    def _read_committed(self, name: LogName) -> Update | None:
        """The update that committed labels refer to; None if `durable` holds it already."""
        update = self._read_log(str(name))
        if update is None and name.seq > self.durable.seq:
            raise BankError(
                f"the labels of unit {name.unit} are committed, but {name} is not on the store: "
                "log objects are to be written before the labels; bring the object back, or "
                "delete the unit's labels to have it labelled again"
            )
        return update


def _own(update: Update) -> Update:
    """A copy: what comes in may live in shared memory, or be written to by its owner."""
    return {
        scope: replace(
            change,
            entries_E=change.entries_E.copy(),
            keys_ED=change.keys_ED.copy(),
            prompts_EPD=change.prompts_EPD.copy(),
            usage_E=change.usage_E.copy(),
        )
        for scope, change in significant(update).items()
    }
