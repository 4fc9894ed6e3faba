"""What an output holds already: its committed units, and the ids of their frames."""

from __future__ import annotations

import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

from mint_stream.compacted import Record, read_file, read_record
from mint_stream.storage import ObjectMissing, StorageError, Store
from mint_stream.units import Done, labels_name, shard_end_name, shard_of

_READERS = 16
"""Objects that are fetched at the same time: reading small objects waits on latency alone."""


def load_done(store: Store, unit_size: int) -> Done:
    """What is committed in an output, from the names of its objects.

    Raises `StorageError`.
    """

    def names(prefix: str) -> list[str]:
        return [info.name for info in store.list(prefix)]

    labels, shards, partial = names("labels/"), names("shards/"), names("partial/")
    record = read_record(store)  # after the list: see there
    recorded = record.units if record else {}

    def frames_of(unit: str) -> int:
        if unit in recorded:
            return recorded[unit].frames
        metadata = _file(store, labels_name(unit)).schema_arrow.metadata or {}
        return int(metadata[b"mint.frames"])

    for unit, facts in recorded.items():
        labels.append(labels_name(unit))
        if facts.shard_frames is not None:
            shards.append(shard_end_name(shard_of(unit), facts.shard_frames))
    return Done(unit_size, labels=labels, shards=shards, partial=partial, frames_of=frames_of)


def settled_frames(store: Store) -> frozenset[str]:
    """Ids of all frames that committed units labelled or rejected. Raises `StorageError`."""
    while True:
        labels = [info.name for info in store.list("labels/")]
        record = read_record(store)  # after the list: see there
        try:
            return _frames(store, labels, record)
        except ObjectMissing:
            if read_record(store) == record:
                raise
            # Its files came into the record meanwhile, or those of the record into a newer one.


def _frames(store: Store, labels: list[str], record: Record | None) -> frozenset[str]:
    recorded = record.units if record else {}
    own = [name for name in labels if _unit(name) not in recorded]
    units = {_unit(name) for name in own}
    own += [info.name for info in store.list("rejects/") if _unit(info.name) in units]

    def frames(file: pq.ParquetFile) -> Iterable[str | None]:
        found: list[str | None] = file.read(columns=["frame"])["frame"].to_pylist()
        return found

    with ThreadPoolExecutor(_READERS) as readers:
        found = list(readers.map(lambda name: frames(_file(store, name)), own))
    if record is not None:
        generation = record.generation
        for file in (*generation.labels, *generation.rejects):
            data = read_file(store, generation, file)
            found.append(frames(pq.ParquetFile(io.BytesIO(data))))
    return frozenset(frame for ids in found for frame in ids if frame is not None)


def _unit(name: str) -> str:
    return name.rpartition("/")[2].removesuffix(".parquet")


def _file(store: Store, name: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(io.BytesIO(store.read(name)))
    except pa.ArrowInvalid as error:
        raise StorageError(
            f"{store.uri(name)} is not a readable Parquet file ({error}); it was damaged after it "
            "was written: delete it and run again, its unit is then labelled anew"
        ) from error
