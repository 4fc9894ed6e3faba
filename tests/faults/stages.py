"""The stages of the pipeline with a look at the plan of kills before and after each operation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
from kills import plan, reached

from mint_stream import dataset, source
from mint_stream.bank_client import BankClient, MergeReceipt
from mint_stream.bank_state import Update
from mint_stream.metrics import Origin
from mint_stream.storage import RetryPolicy, Store

_CREATED = {"rejects/": "rejects", "bank/log/": "log", "labels/": "labels"}
_WRITTEN = {".parquet": "checkpoint", ".json": "manifest"}


class KillingStore(Store):
    """The output's store. What is removed from the bank's log is kept aside."""

    def __reduce__(self) -> tuple[Callable[..., Store], tuple[str, RetryPolicy]]:
        return _rebuild, (self.url, self.retry)

    def list(self, prefix: str = "") -> list[Any]:
        if prefix.startswith("bank/"):
            plan().register("bank")
        return super().list(prefix)

    def create(self, name: str, data: bytes) -> bool:
        for folder, point in _CREATED.items():
            if name.startswith(folder):
                plan().register("commit")
                return bool(_around(point, super().create, name, data))
        return super().create(name, data)

    def write(self, name: str, data: bytes) -> None:
        for suffix, point in _WRITTEN.items():
            if name.startswith("bank/checkpoints/") and name.endswith(suffix):
                _around(point, super().write, name, data)
                return
        super().write(name, data)

    def delete(self, name: str) -> None:
        if not name.startswith("bank/log/"):
            super().delete(name)
            return
        kept = plan().folder / "removed" / name.rpartition("/")[2]
        if not kept.exists():
            kept.write_bytes(self.read(name))
        _around("removal", super().delete, name)


class KillingBankClient(BankClient):
    def merge(self, unit: str, update: Update) -> MergeReceipt:
        receipt: MergeReceipt = _around("merge", super().merge, unit, update)
        return receipt


class KillingLabelUnits(dataset.LabelUnits):
    def __init__(self, *arguments: Any) -> None:
        dataset.BankClient = KillingBankClient  # type: ignore[misc]  # in this process only
        plan().register("labeler")
        super().__init__(*arguments)


def killing_read_units(
    batch: pa.Table, config: source.ReadConfig, control: source.Control, origin: Origin
) -> Iterator[pa.Table]:
    """`read_units`, keeping pace with the rest of the run."""
    plan().register("read")
    for unit in source.read_units(batch, config, control, origin):
        plan().release(_number(unit, config.unit_size))
        plan().register("read")
        yield unit


def _number(unit: pa.Table, unit_size: int) -> int:
    """The number of a unit among all of them: the shards have FRAMES each."""
    shard = int(unit["shard"][0].as_py().rpartition("/")[2].removesuffix(".tar"))
    start = int(unit["unit"][0].as_py().rpartition("-")[2])
    return (shard * FRAMES + start) // unit_size


FRAMES = 32
"""Frames in each shard of the input."""


def _around(point: str, operation: Callable[..., Any], *arguments: Any) -> Any:
    reached(point, "before")
    answer = operation(*arguments)
    reached(point, "after")
    return answer


def _rebuild(url: str, retry: RetryPolicy) -> Store:
    return KillingStore(url, retry=retry)
