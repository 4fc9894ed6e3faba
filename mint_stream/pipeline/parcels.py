"""Several units as one row, for their way through Ray Data.

Ray Data looks for finished tasks every tenth of a second, and each task costs its driver some 20 ms
of work: a small model labels a unit in less. So what travels between stages are parcels,
consecutive units of one shard. A parcel is one row, because Ray Data may split blocks and never
rows; and what is in it depends on the units alone, not on time: of a task that is repeated Ray
takes what the first attempt has handed on as handed on, by position.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa

from mint_stream.input.records import from_row
from mint_stream.input.units import LeftBehind, Unit
from mint_stream.pipeline.rows import Place, parcel_row

Kind = TypeVar("Kind")

_MOST_EARLY = 64
"""Parcels that wait for one before them: no more than a few are under way to a labeler."""


@dataclass(frozen=True, kw_only=True)
class ParcelSize:
    """How many units a shard's parcels hold: `first`, then twice as many, up to `most`.

    Small ones first, so that labelling begins soon and a short shard is shared out among labelers.
    """

    first: int = 1
    most: int
    most_bytes: int = 32 * 2**20
    """Of pixels in a parcel, unless a single unit has more."""


def pack(
    kind: type[Kind],
    units: Sequence[Kind],
    place: Place | None = None,
    left: Sequence[LeftBehind] = (),
) -> pa.Table:
    """Units, all of one dataclass, as a table of one row.

    place: for parcels that `InOrder` is to put in order. left: what could not be had.
    """
    return parcel_row(kind, list(units), place, left)


def left_of(parcels: pa.Table) -> list[LeftBehind]:
    """What is left, of all rows of a table."""
    found = (what for row in parcels["left"].to_pylist() for what in row or ())
    return [from_row(LeftBehind, what) for what in found]


def place_of(parcel: pa.Table) -> Place | None:
    """Where a parcel stands in the stream."""
    place = parcel["place"][0].as_py()
    return None if place is None else from_row(Place, place)


def unpack(kind: type[Kind], parcels: pa.Table) -> Iterator[Kind]:
    """The units of all rows of a table, in order, each converted when its turn comes."""
    for chunk in parcels["units"].chunks:
        structs = chunk.flatten()
        for index in range(len(structs)):
            yield from_row(kind, structs[index].as_py())


def parcels(
    units: Iterable[Unit], shard: int, size: ParcelSize, left: Sequence[LeftBehind] = ()
) -> Iterator[pa.Table]:
    """The units of a shard as parcels; an empty one if there are none.

    shard: its number among those that are handed out. left: a list that may grow until `units`
    ends; the last parcel takes it along.
    """
    number, waiting = 0, list[Unit]()
    for gathered in _gathered(units, size):
        if waiting:
            yield pack(Unit, waiting, Place(shard=shard, number=number, last=False))
            number += 1
        waiting = gathered
    yield pack(Unit, waiting, Place(shard=shard, number=number, last=True), left)


def _gathered(units: Iterable[Unit], size: ParcelSize) -> Iterator[list[Unit]]:
    wanted, waiting, waiting_bytes = min(size.first, size.most), list[Unit](), 0
    for unit in units:
        waiting.append(unit)
        waiting_bytes += sum(len(frame.pixels) for frame in unit.frames)
        if len(waiting) >= wanted or waiting_bytes >= size.most_bytes:
            yield waiting
            wanted, waiting, waiting_bytes = min(2 * wanted, size.most), [], 0
    if waiting:
        yield waiting


class StreamBroken(RuntimeError):
    """Parcels came twice, or do not come: a task was repeated and found another input than before.

    What is committed is whole; what is not has to be handed out anew.
    """


class InOrder:
    """Parcels in the order of the stream, in whatever order they arrive.

    Of the tasks that wait at an actor Ray starts whichever it likes. All shards from number 0 on
    and all parcels of each have to come, each once: else `due` raises `StreamBroken`.
    """

    def __init__(self) -> None:
        self._next = (0, 0)
        self._early: dict[tuple[int, int], tuple[bool, pa.Table]] = {}

    def due(self, parcel: pa.Table) -> Iterator[pa.Table]:
        """What can be labelled now that `parcel` has arrived."""
        place = place_of(parcel)
        assert place is not None
        here = place.shard, place.number
        if here < self._next or here in self._early:
            raise StreamBroken(f"parcel {here} came twice")
        self._early[here] = place.last, parcel
        if len(self._early) > _MOST_EARLY:
            raise StreamBroken(f"parcel {self._next} did not come")
        while self._next in self._early:
            (shard, number), (last, following) = self._next, self._early.pop(self._next)
            self._next = (shard + 1, 0) if last else (shard, number + 1)
            yield following
