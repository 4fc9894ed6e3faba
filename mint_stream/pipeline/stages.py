"""The stages of the dataset, as Ray Data calls them: read_units, LabelUnits, commit_units.

Between them units travel in `parcels`. What is done to a unit stands in `input.units`,
`labeler` and `output.commit`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import TYPE_CHECKING

import pyarrow as pa
import ray

from mint_stream.bank.client import BankClient
from mint_stream.input.units import LeftBehind, ReadConfig, ShardTask, Unit, read_shard
from mint_stream.labeler.config import LabelerConfig
from mint_stream.output import commit
from mint_stream.output.units import CommittedUnit, LabelledUnit
from mint_stream.pipeline.bank_actor import RemoteBank
from mint_stream.pipeline.control import RemoteControl, was_started_again
from mint_stream.pipeline.origin import Origin
from mint_stream.pipeline.parcels import (
    InOrder,
    ParcelSize,
    left_of,
    pack,
    parcels,
    place_of,
    unpack,
)
from mint_stream.pipeline.rows import shard_tasks
from mint_stream.pipeline.sharing import require_shared
from mint_stream.store.store import Store

if TYPE_CHECKING:
    from mint_stream.labeler.labeler import Looked, MintLabeler

MOST_READERS = 3
"""That may die in a row at the same place of a shard; the next one gives its rest up."""
HAND_ON_S = 0.25
"""Longest that the only labeler of a run gathers labelled units before it hands them on."""


def read_units(
    batch: pa.Table, config: ReadConfig, size: ParcelSize, control: RemoteControl, origin: Origin
) -> Iterator[pa.Table]:
    """rows.SHARD_ROW rows in, parcels of units out."""
    origin.enter()
    for number, task in shard_tasks(batch):
        yield from _parcels_of(number, task, config, size, control)


def _parcels_of(
    number: int,
    task: ShardTask,
    config: ReadConfig,
    size: ParcelSize,
    control: RemoteControl,
) -> Iterator[pa.Table]:
    """A shard's parcels; where reading it has killed too many before, up to that place.

    What is handed on is what was handed on before: a parcel is when the next one has been
    gathered, and how many units that took is noted before.
    """
    deaths, reached = control.begin_reading(number)
    given_up = reached if deaths >= MOST_READERS else None
    left = list[LeftBehind]()
    units = _Counted(read_shard(task, config, control, left.append, given_up=given_up))
    for parcel in parcels(units, number, size, left):
        control.reached(number, units.count, units.ended)
        yield parcel
        control.read_on(number)
    control.end_reading(number)


class _Counted:
    """Units, counted as they are taken."""

    def __init__(self, units: Iterable[Unit]) -> None:
        self._units = units
        self.count = 0
        self.ended = False

    def __iter__(self) -> Iterator[Unit]:
        for unit in self._units:
            self.count += 1
            yield unit
        self.ended = True


class LabelUnits:
    """The labeler as Ray Data's actor pool builds and calls it.

    If it is the only one of a run it is the sequential algorithm: it labels in the order of the
    stream. When it dies, Ray starts another one and repeats the tasks that were under way, in any
    order: that one exits for good, which ends the dataset with `RayActorError`, and the run makes a
    new one of what is not committed. One of several labels what comes, and goes on after a death.
    """

    def __init__(
        self,
        config: LabelerConfig,
        bank: RemoteBank | None,
        control: RemoteControl,
        origin: Origin,
    ) -> None:
        origin.enter()
        self._control = control
        alone = config.labelers == 1
        self._order = InOrder() if alone else None
        # A task that Ray repeats has to hand on what it did before: every unit by itself.
        self._hand_on_s = HAND_ON_S if alone else 0.0
        self._labeler: MintLabeler | Exception
        self._ahead: ThreadPoolExecutor | None = None
        self._idle_since: float | None = None
        self._exits = alone and was_started_again()
        if self._exits:
            return
        try:
            # Here and not above: it brings torch along, which no other process of a run needs.
            from mint_stream.labeler.labeler import MintLabeler, set_threads

            self._labeler = MintLabeler(config, None if bank is None else BankClient(bank))
            if self._labeler.looks_ahead:
                self._ahead = ThreadPoolExecutor(1, "look-ahead", set_threads, (config.threads,))
        except Exception as error:
            # Raised by the first unit instead: of an error in here Ray hands on its own text only.
            self._labeler = error

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Parcels of units in, of labelled units out. A stop request ends it early."""
        if self._exits:
            ray.actor.exit_actor()
        if isinstance(self._labeler, Exception):
            raise self._labeler
        due = [batch] if self._order is None else list(self._order.due(batch))
        if not due:
            return
        labelled, since = list[LabelledUnit](), time.monotonic()
        idle_s = since - (self._idle_since or since)
        for unit, looked in self._looked(
            chain.from_iterable(unpack(Unit, parcel) for parcel in due)
        ):
            if self._control.stopping():
                yield pack(LabelledUnit, labelled)
                return
            if labelled and time.monotonic() - since >= self._hand_on_s:
                yield pack(LabelledUnit, labelled)
                labelled, since = [], time.monotonic()
            look = None if looked is None else looked.result()
            labelled.append(self._labeler(unit, look, idle_s))
            idle_s = 0.0
        left = [what for parcel in due for what in left_of(parcel)]
        yield pack(LabelledUnit, labelled, place_of(due[-1]), left)
        self._idle_since = time.monotonic()

    def _looked(self, units: Iterable[Unit]) -> Iterator[tuple[Unit, Future[Looked] | None]]:
        """Each unit, and the look at it: taken while the one before it is merged and written."""
        if self._ahead is None:
            yield from ((unit, None) for unit in units)
            return
        assert not isinstance(self._labeler, Exception)
        before: tuple[Unit, Future[Looked]] | None = None
        for unit in units:
            looked = self._ahead.submit(self._labeler.look, unit)
            if before is not None:
                yield before
            before = unit, looked
        if before is not None:
            yield before


def commit_units(
    batch: pa.Table, store: Store, bank: RemoteBank | None, origin: Origin, *, again: bool
) -> pa.Table:
    """A parcel of labelled units in, one of committed units out; committed in between."""
    origin.enter()
    if origin.token is not None:
        require_shared(store, origin.token)
    committed = commit.commit_units(list(unpack(LabelledUnit, batch)), store, bank, again=again)
    return pack(CommittedUnit, committed, place_of(batch), left_of(batch))
