"""Parts of the pipeline that carry a plan of kills, and look at it around each operation.

They replace the product's own in the driver (`armed`) and travel from there to tasks and actors.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from kills import Plan

from mint_stream.bank.exchange import MergeAnswer, Position, Restarted
from mint_stream.input import units
from mint_stream.input.frames import Frame, Reject
from mint_stream.input.grid import unit_start
from mint_stream.input.shard import Shard
from mint_stream.input.units import ReadConfig, Unit
from mint_stream.method.bank_state import Update
from mint_stream.pipeline import dataset
from mint_stream.pipeline.bank_actor import RemoteBank
from mint_stream.pipeline.control import RemoteControl
from mint_stream.pipeline.origin import Origin
from mint_stream.pipeline.parcels import ParcelSize, unpack
from mint_stream.store.store import RetryPolicy, Store

FRAMES = 32
"""Frames in each shard of the input."""

_CREATED = {
    "rejects/": "rejects",
    "bank/log/": "log",
    "labels/": "labels",
    "relabelled/": "relabelled",
}
_WRITTEN = {".parquet": "checkpoint", ".json": "manifest"}


class KillingStore(Store):
    """The output's store. What is removed from the bank's log is kept aside."""

    def __init__(self, url: str, retry: RetryPolicy, plan: Plan) -> None:
        super().__init__(url, retry=retry)
        self.plan = plan

    def __reduce__(self) -> tuple[Callable[..., Store], tuple[Any, ...]]:
        return KillingStore, (self.url, self.retry, self.plan)

    def list(self, prefix: str = "") -> list[Any]:
        if prefix.startswith("bank/"):
            self.plan.register("bank")
        return super().list(prefix)

    def create(self, name: str, data: bytes) -> bool:
        for folder, point in _CREATED.items():
            if name.startswith(folder):
                self.plan.register("commit")
                return bool(self.plan.around(point, super().create, name, data))
        return super().create(name, data)

    def write(self, name: str, data: bytes) -> None:
        for suffix, point in _WRITTEN.items():
            if name.startswith("bank/checkpoints/") and name.endswith(suffix):
                self.plan.around(point, super().write, name, data)
                return
        super().write(name, data)

    def delete(self, name: str) -> None:
        if not name.startswith("bank/log/"):
            super().delete(name)
            return
        kept = self.plan.folder / "removed" / name.rpartition("/")[2]
        if not kept.exists():
            kept.write_bytes(self.read(name))
        self.plan.around("removal", super().delete, name)


@dataclass(frozen=True)
class KillingBank(RemoteBank):
    """The bank server as labelers reach it."""

    plan: Plan | None = None

    def pull(self, unit: str) -> Position:
        assert self.plan is not None
        self.plan.register("labeler")
        return super().pull(unit)

    def merge(
        self,
        incarnation: str,
        unit: str,
        update: Update,
        versions: Mapping[str, int],
        held: Sequence[str],
    ) -> MergeAnswer | Restarted:
        assert self.plan is not None
        answer: MergeAnswer | Restarted = self.plan.around(
            "merge", super().merge, incarnation, unit, update, versions, held
        )
        return answer


@dataclass
class KillingControl(RemoteControl):
    """The run's notes, and with them the plan for the tasks that read."""

    plan: Plan | None = None


def killing_read_units(
    batch: pa.Table, config: ReadConfig, size: ParcelSize, control: KillingControl, origin: Origin
) -> Iterator[pa.Table]:
    """`read_units`, keeping pace with the rest of the run."""
    plan = control.plan
    assert plan is not None
    plan.register("read")
    for parcel in dataset.read_units(batch, config, size, control, origin):
        plan.release(_first_number(parcel, config.unit_size))
        plan.register("read")
        yield parcel


def deadly_read_units(
    batch: pa.Table, config: ReadConfig, size: ParcelSize, control: RemoteControl, origin: Origin
) -> Iterator[pa.Table]:
    """`read_units`, in a process that is killed at frame 6 of a shard called `deadly`."""
    whole = units.read_frames

    def frames(shard: Shard, **options: Any) -> Iterator[Frame | Reject]:
        for item in whole(shard, **options):
            if "deadly" in shard.uri and item.index == 6:
                os.kill(os.getpid(), signal.SIGKILL)
            yield item

    units.read_frames = frames
    try:
        yield from dataset.read_units(batch, config, size, control, origin)
    finally:
        units.read_frames = whole


def losing_read_units(
    batch: pa.Table, config: ReadConfig, size: ParcelSize, control: KillingControl, origin: Origin
) -> Iterator[pa.Table]:
    """`read_units`, of which the first attempt loses what comes after the first parcel."""
    plan = control.plan
    assert plan is not None
    for parcel in dataset.read_units(batch, config, size, control, origin):
        yield parcel
        if plan.first_time("lost"):
            return


class DyingLabelUnits(dataset.LabelUnits):
    """A labeler that is killed whenever it is to label, as one for which memory is too small."""

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        if not self._exits:
            os.kill(os.getpid(), signal.SIGKILL)
        yield from super().__call__(batch)


def _first_number(parcel: pa.Table, unit_size: int) -> int:
    """The number of a parcel's first unit among all: the shards have FRAMES each."""
    unit = next(unpack(Unit, parcel))
    shard = int(unit.shard.rpartition("/")[2].removesuffix(".tar"))
    return (shard * FRAMES + unit_start(unit.unit)) // unit_size
