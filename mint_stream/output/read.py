"""Reading a run's outputs back as Arrow tables, and holding them against a known truth.

Where the input says what is really there (`mint_stream.input.truth.read_truth`):

    labels = read_labels("s3://bucket/out")
    for row in accuracy_by(with_truth(labels, truth)):
        print(row.name, row.frames, row.source_accuracy, row.accuracy)
"""

from __future__ import annotations

import io
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mint_stream.output import schema
from mint_stream.output.generations import CompactedError, Generation, newest, read_file
from mint_stream.store.errors import ObjectMissing, StorageError
from mint_stream.store.store import Store

log = logging.getLogger(__name__)

_READERS = 16
"""Objects that are fetched at the same time: reading small objects waits on latency alone."""


def read_labels(output: str, *, relabelled: bool = True) -> pa.Table:
    """Every committed label of the run that wrote to `output` (a folder or any fsspec URL).

    With `relabelled`, rows that were labelled again stand in place of those they were made for.

    Columns as in `schema.LABELS`; rows by shard in natural order (2 before 10), within a shard in
    the order of its frames. An output without labels gives an empty table. Raises `StorageError`
    for an address that cannot be read or has no output, or a file that is not Parquet, naming it.
    """
    labels = _read(output, "labels", schema.LABELS)
    return _with_relabelled(labels, Store(output)) if relabelled else labels


def read_rejects(output: str) -> pa.Table:
    """Every frame or shard that could not be labelled, as `schema.REJECTS`; else `read_labels`."""
    return _read(output, "rejects", schema.REJECTS)


def would_be(labels: pa.Table) -> pa.Array:
    """The labels, and where a frame has none the most probable one."""
    return pc.coalesce(labels["label"], pc.list_element(labels["topk_labels"], 0)).combine_chunks()


def strings(table: pa.Table, column: str) -> np.ndarray:
    """A string column as an object array with None for null."""
    return np.array(table[column].to_pylist(), dtype=object)


def _read(output: str, folder: Literal["labels", "rejects"], wanted: pa.Schema) -> pa.Table:
    store = Store(output)
    while True:
        # First the list: unit files that are not in it any more are in the generation.
        names = [i.name for i in store.list(f"{folder}/") if i.name.endswith(".parquet")]
        generation = _newest(store)
        if not names and generation is None and not _is_output(store):
            raise StorageError(
                f"there is no output of mint_stream at {store.uri()}: neither {schema.SETTINGS} "
                "nor labels; check the address"
            )
        try:
            table = _read_once(store, folder, wanted, names, generation)
        except ObjectMissing:
            if _newest(store) == generation:
                raise
            # Compacted since, and what was being read is no longer kept.
            continue
        return table.replace_schema_metadata(wanted.metadata)


def _is_output(store: Store) -> bool:
    return store.exists(schema.SETTINGS) or any(map(store.holds, ("labels/", "rejects/")))


def _with_relabelled(labels: pa.Table, store: Store) -> pa.Table:
    """The rows in `relabelled/` in the places of those of the same frames."""
    names = [info.name for info in store.list("relabelled/") if info.name.endswith(".parquet")]
    if not names:
        return labels
    with ThreadPoolExecutor(_READERS) as readers:
        tables = list(readers.map(lambda name: read_parquet_file(store, name), names))
    again = pa.concat_tables(tables, promote_options="default").select(labels.column_names)
    at = pc.index_in(labels["frame"].combine_chunks(), value_set=again["frame"].combine_chunks())
    rows = pa.array(np.arange(labels.num_rows))
    take = pc.if_else(pc.is_valid(at), pc.add(at.cast(pa.int64()), labels.num_rows), rows)
    both = pa.concat_tables([labels, again.cast(labels.schema)])
    return both.take(take).replace_schema_metadata(labels.schema.metadata)


def _newest(store: Store) -> Generation | None:
    try:
        return newest(store)
    except CompactedError as error:
        log.warning("%s; reading the unit files instead", error)
        return None


def _read_once(
    store: Store,
    folder: Literal["labels", "rejects"],
    wanted: pa.Schema,
    names: list[str],
    generation: Generation | None,
) -> pa.Table:
    """The rows of a generation, and those of the units in `names` that it does not hold."""
    compacted: list[pa.Table] = []
    held: set[str] = set()
    if generation is not None:
        try:
            files = getattr(generation, folder)
            with ThreadPoolExecutor(_READERS) as readers:
                data = list(readers.map(lambda file: read_file(store, generation, file), files))
            compacted = [pq.read_table(io.BytesIO(content)) for content in data]
            index = pq.read_table(io.BytesIO(read_file(store, generation, generation.units)))
            held = set(index["unit"].to_pylist())
        except CompactedError as error:
            log.warning("%s; reading the unit files instead", error)
            compacted, held = [], set()
    names = [name for name in names if PurePosixPath(name).stem not in held]
    with ThreadPoolExecutor(_READERS) as readers:
        tables = list(readers.map(lambda name: read_parquet_file(store, name), names))
    parts = [_placed(table) for table in (wanted.empty_table(), *tables)] + compacted
    table = pa.concat_tables(parts, promote_options="default")
    return _in_order(table).drop_columns(["position"])


def _placed(table: pa.Table) -> pa.Table:
    """With the place of each row in its unit, as compacted files have it."""
    return table.append_column("position", pa.array(range(table.num_rows), pa.int32()))


def _in_order(table: pa.Table) -> pa.Table:
    """Rows by shard in natural order, unit, and place in the unit."""
    shards = sorted(table["shard"].unique().to_pylist(), key=lambda shard: _natural(shard or ""))
    rank = pc.index_in(table["shard"], value_set=pa.array(shards, pa.string()))
    order = [(name, "ascending") for name in ("rank", "unit", "position")]
    return table.take(pc.sort_indices(table.append_column("rank", rank), sort_keys=order))


def _natural(shard: str) -> list[str | int]:
    # Digits count as numbers, as where shards are discovered: shard-2 before shard-10.
    pieces = re.split(r"([0-9]+)", shard)
    return [int(piece) if n % 2 else piece for n, piece in enumerate(pieces)]


def read_parquet_file(store: Store, name: str, columns: list[str] | None = None) -> pa.Table:
    """One Parquet object. Raises `StorageError`, which names it, if it is damaged."""
    try:
        return pq.read_table(io.BytesIO(store.read(name)), columns=columns)
    except pa.ArrowInvalid as error:
        raise StorageError(
            f"{store.uri(name)} is not a readable Parquet file ({error}); it was damaged after it "
            "was written: delete it and run again, its unit is then labelled anew"
        ) from error
