"""Unit files that a generation holds, removed: `mint-stream compact --remove-units`.

    1. the output's lease is taken: no run is writing
    2. a generation of every committed unit is written, and the output verified
    3. what is in the generation is held against the unit files, row by row
    4. a manifest with the next number, and the same files, makes it the record, as `compact/record`
       says as well
    5. labels, rejects and shard markers of its units are removed, in any order

Until 4 nothing is taken away. From 4 on everybody goes by the record (`output.generations`), so
that being cut off in 5 leaves only files that do not count; the next call removes them.
"""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mint_stream.bank.log import each
from mint_stream.input.grid import shard_of
from mint_stream.output import schema
from mint_stream.output.generations import (
    RECORD,
    CompactedError,
    CompactFile,
    Generation,
    UnitFacts,
    facts_of,
    manifest_name,
    read_file,
)
from mint_stream.output.lease import Lease, LeaseHeld
from mint_stream.output.names import labels_name, rejects_name, shard_end_name
from mint_stream.store.store import Store
from mint_stream.upkeep.compaction import Compaction, compact, placed, unit_tables
from mint_stream.upkeep.verify.verify import verify

_AT_A_TIME = 256
_PLACE = [("unit", "ascending"), ("position", "ascending")]


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What a call did."""

    compaction: Compaction
    """With the generation that is the record now."""
    removed: int
    """Objects."""


def remove_units(output: str) -> Removal | None:
    """Have the newest generation be the only one that holds the committed units.

    None for an output without a committed unit. Raises `LeaseHeld` while a run is writing,
    `CompactedError` if verifying finds anything or a copy differs: nothing is removed then.
    """
    store = Store(output)
    lost = threading.Event()
    lease = Lease(store, on_lost=lost.set)
    lease.acquire()
    try:
        done = compact(output)
        if done is None:
            return None
        verdict = verify(output)
        if not verdict.clean:
            raise CompactedError(
                f"{output} is not whole ({verdict.findings[0].object} {verdict.findings[0].what}): "
                "nothing was removed; `verify` has the rest"
            )
        generation = done.generation
        units = facts_of(pq.read_table(io.BytesIO(read_file(store, generation, generation.units))))
        _check_copies(store, generation, units)
        if not generation.record:
            generation = replace(generation, number=generation.number + 1, record=True)
            if not store.create(manifest_name(generation.number), generation.to_json()):
                raise LeaseHeld(f"another compaction of {output} was faster: run it again")
        store.create(RECORD, b"")
        removed = _remove(store, units, lost)
        return Removal(compaction=replace(done, generation=generation), removed=removed)
    finally:
        lease.release()


def _own(store: Store, folder: str, units: dict[str, UnitFacts]) -> set[str]:
    """The units among `units` that have a file of their own in `folder`."""
    names = (info.name.rpartition("/")[2] for info in store.list(folder))
    return {name.removesuffix(".parquet") for name in names} & units.keys()


def _check_copies(store: Store, generation: Generation, units: dict[str, UnitFacts]) -> None:
    """Every row of the unit files is in the generation as it is there, and nothing is twice."""
    rows: Counter[str] = Counter()
    for kind, files, name_of in (
        (schema.LABELS, generation.labels, labels_name),
        (schema.REJECTS, generation.rejects, rejects_name),
    ):
        own = _own(store, name_of("").partition("/")[0] + "/", units)
        for file in files:
            table = pq.read_table(io.BytesIO(read_file(store, generation, file)))
            rows.update(table["unit"].to_pylist())
            own_here = sorted(own.intersection(table["unit"].to_pylist()))
            _check_file(store, generation, file, table, kind, own_here, name_of)
    for unit, facts in units.items():
        if rows[unit] != facts.frames:
            raise CompactedError(
                f"{generation.name} has {rows[unit]} rows of unit {unit}, which has "
                f"{facts.frames}: nothing was removed"
            )


def _check_file(
    store: Store,
    generation: Generation,
    file: CompactFile,
    table: pa.Table,
    kind: pa.Schema,
    units: list[str],
    name_of: Callable[[str], str],
) -> None:
    if len(set(_keys(table))) != table.num_rows:
        raise CompactedError(f"{file.name} has a row twice: nothing was removed")
    for first in range(0, len(units), _AT_A_TIME):
        some = units[first : first + _AT_A_TIME]
        copies = table.filter(pc.is_in(table["unit"], pa.array(some))).sort_by(_PLACE)
        own = [placed(part, kind) for _, part in unit_tables(store, some, name_of)]
        originals = pa.concat_tables(own, promote_options="default")
        # Of a unit with several cameras or days this file has some rows.
        here = set(_keys(copies))
        originals = originals.filter(pa.array([key in here for key in _keys(originals)]))
        originals = originals.sort_by(_PLACE)
        if not _same(originals, copies):
            differing = next(
                unit
                for unit in some
                if not _same(*(t.filter(pc.equal(t["unit"], unit)) for t in (originals, copies)))
            )
            remedy = f"delete {generation.name} and compact again"
            if generation.record:
                remedy = "if it is what an attempt left that was cut off long ago, delete it"
            raise CompactedError(
                f"{name_of(differing)} is not what {file.name} has of it: nothing was removed; "
                + remedy
            )


def _same(originals: pa.Table, copies: pa.Table) -> bool:
    """Whether two tables say the same; columns that only other units have may be null."""
    only = set(copies.column_names) - set(originals.column_names)
    return all(copies[name].null_count == copies.num_rows for name in only) and all(
        name in copies.column_names and originals[name].equals(copies[name])
        for name in originals.column_names
    )


def _keys(table: pa.Table) -> Iterator[tuple[str, int]]:
    return zip(table["unit"].to_pylist(), table["position"].to_pylist(), strict=True)


def _remove(store: Store, units: dict[str, UnitFacts], lost: threading.Event) -> int:
    ends = {
        shard_end_name(shard_of(unit), facts.shard_frames)
        for unit, facts in units.items()
        if facts.shard_frames is not None
    }
    # Those that say what was left out of their shard stay: nothing else does.
    there = [info.name for info in store.list("shards/") if not info.size]
    names = [labels_name(unit) for unit in _own(store, "labels/", units)]
    names += [rejects_name(unit) for unit in _own(store, "rejects/", units)]
    names += [name for name in there if name in ends]
    for first in range(0, len(names), _AT_A_TIME):
        if lost.is_set():
            raise LeaseHeld(
                f"a run has taken the output over after {first:,} of {len(names):,} objects were "
                "removed, which does no harm: run this again when it has ended"
            )
        each(store.delete, names[first : first + _AT_A_TIME])
    return len(names)
