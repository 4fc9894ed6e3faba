"""What travels between the stages of the pipeline: shards, then units, as Arrow has them.

Shards travel one by one, units in `parcels`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

_TIME = pa.timestamp("us", tz="UTC")

FRAME = pa.struct(
    [
        ("frame", pa.string()),
        ("member", pa.string()),
        ("camera", pa.string()),
        ("timestamp", _TIME),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("pixels_height", pa.int32()),
        ("pixels_width", pa.int32()),
        ("pixels", pa.large_binary()),
    ]
)
"""A decoded frame: the stored image's size, and pixels as uint8 RGB, row by row."""

REJECT = pa.struct(
    [
        ("frame", pa.string()),
        ("member", pa.string()),
        ("stage", pa.string()),
        ("error_type", pa.string()),
        ("message", pa.string()),
        ("size_bytes", pa.int64()),
    ]
)

SHARD_ROW = pa.schema(
    [
        ("number", pa.int64()),
        ("shard", pa.string()),
        ("done", pa.string()),
        ("stop", pa.int64()),
        ("refused", pa.string()),
    ]
)
"""source -> read: which one it is of those handed out; the shard and its committed units as JSON;
frames from `stop` on are left. A shard that is `refused`, for the reason given there, is not read
and becomes one reject."""

PLACE = pa.struct([("shard", pa.int64()), ("number", pa.int64()), ("last", pa.bool_())])
"""Of a parcel, in the stream: number of its shard, its own number there, and whether it is the
shard's last one."""

UNIT_ROW = pa.schema(
    [
        ("unit", pa.string()),
        ("shard_id", pa.string()),
        ("shard", pa.string()),
        ("frames", pa.list_(FRAME)),
        ("rejects", pa.list_(REJECT)),
        ("partial", pa.bool_()),
        ("shard_frames", pa.int64()),
        ("read_seconds", pa.float64()),
    ]
)
"""read -> label. `shard_frames` is set in a shard's last unit: how many frames it has."""

LABELLED_ROW = pa.schema(
    [
        ("unit", pa.string()),
        ("shard_id", pa.string()),
        ("partial", pa.bool_()),
        ("shard_frames", pa.int64()),
        ("labels", pa.large_binary()),
        ("rejects", pa.large_binary()),
        ("log_name", pa.string()),
        ("log", pa.large_binary()),
        ("labelled", pa.int64()),
        ("abstained", pa.int64()),
        ("adapted", pa.int64()),
        ("spared", pa.int64()),
        ("adapt_seconds", pa.float64()),
        ("passes", pa.int64()),
        ("rejected", pa.string()),
        ("bank_seq", pa.int64()),
        ("bank_staleness", pa.int64()),
        ("cameras", pa.string()),
        ("stage_seconds", pa.string()),
    ]
)
"""label -> commit: the objects to write, ready as bytes; counts and seconds as JSON. `abstained`:
labelled frames without a label, none being sure enough; `spared`: frames that an adaptation budget
left no time for; `adapt_seconds`: what it counted. `passes`: what the labels cost, in encoder
passes over one view, forward and backward. `bank_seq`: merges that the bank has seen;
`bank_staleness`: those of them that other labelers made while this unit was labelled. Both are null
without a bank. `cameras`, as JSON, is for each camera (`""` for frames without one) its `domain`,
its `drift`, what the `guard` said, and of how many `frames`; empty where there are no domains."""

COMMITTED_ROW = pa.schema(
    [
        ("unit", pa.string()),
        ("won", pa.bool_()),
        ("labelled", pa.int64()),
        ("abstained", pa.int64()),
        ("adapted", pa.int64()),
        ("spared", pa.int64()),
        ("adapt_seconds", pa.float64()),
        ("rejected", pa.string()),
        ("bank_seq", pa.int64()),
        ("bank_staleness", pa.int64()),
        ("cameras", pa.string()),
        ("stage_seconds", pa.string()),
    ]
)
"""commit -> driver. `won` is false where another attempt had committed the unit before."""


def row(schema: pa.Schema, values: Mapping[str, Any]) -> pa.Table:
    """One row as a table."""
    return pa.Table.from_pylist([dict(values)], schema=schema)


def rows(table: pa.Table) -> Iterable[dict[str, Any]]:
    """The rows of a table, one at a time."""
    for batch in table.to_batches(max_chunksize=1):
        yield from batch.to_pylist()
