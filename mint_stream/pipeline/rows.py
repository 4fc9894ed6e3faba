"""What travels between the stages, as Arrow has it: shards, then units in parcels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from mint_stream.input.records import struct_of, to_row
from mint_stream.input.shard import Shard
from mint_stream.input.units import LeftBehind, ShardTask

SHARD_ROW = pa.schema([("number", pa.int64()), ("task", pa.string())])
"""source -> read: which one it is of those handed out; the `ShardTask` as ASCII JSON, since names
may hold bytes that are no text."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Of a parcel, in the stream."""

    shard: int
    """Number of its shard among those handed out."""
    number: int
    """Its own number there."""
    last: bool
    """Whether it is the shard's last one."""


def shard_row(number: int, task: ShardTask) -> pa.Table:
    """One row of `SHARD_ROW`."""
    text = json.dumps(
        {
            "shard": task.shard.to_json(),
            "frames_from": list(task.frames_from.items()),
            "stop": task.stop,
            "refused": task.refused,
        }
    )
    return pa.table({"number": [number], "task": [text]}, schema=SHARD_ROW)


def shard_tasks(table: pa.Table) -> Iterator[tuple[int, ShardTask]]:
    """The numbers and tasks of rows of `SHARD_ROW`."""
    for row in table.to_pylist():
        fields = json.loads(row["task"])
        yield (
            row["number"],
            ShardTask(
                shard=Shard.from_json(fields["shard"]),
                frames_from=dict(fields["frames_from"]),
                stop=fields["stop"],
                refused=fields["refused"],
            ),
        )


def parcel_row(
    kind: type, units: list[object], place: Place | None, left: Sequence[LeftBehind] = ()
) -> pa.Table:
    """One row: units of a dataclass `kind`, their place in the stream, and what is left there."""
    schema = pa.schema(
        [
            ("units", pa.list_(struct_of(kind))),
            ("place", struct_of(Place)),
            ("left", pa.list_(struct_of(LeftBehind))),
        ]
    )
    row = {
        "units": [to_row(unit) for unit in units],
        "place": place and to_row(place),
        "left": [to_row(what) for what in left],
    }
    return pa.Table.from_pylist([row], schema=schema)
