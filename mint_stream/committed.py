"""What an output holds already: its committed units, and the ids of their frames."""

from __future__ import annotations

import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

from mint_stream.storage import StorageError, Store
from mint_stream.units import Done, labels_name

_READERS = 16
"""Objects that are fetched at the same time: reading small objects waits on latency alone."""


def load_done(store: Store, unit_size: int) -> Done:
    """What is committed in an output, from the names of its objects.

    Raises `StorageError`.
    """

    def frames_of(unit: str) -> int:
        metadata = _file(store, labels_name(unit)).schema_arrow.metadata or {}
        return int(metadata[b"mint.frames"])

    def names(prefix: str) -> list[str]:
        return [info.name for info in store.list(prefix)]

    return Done(
        unit_size,
        labels=names("labels/"),
        shards=names("shards/"),
        partial=names("partial/"),
        frames_of=frames_of,
    )


def settled_frames(store: Store) -> frozenset[str]:
    """Ids of all frames that committed units labelled or rejected. Raises `StorageError`."""
    labels = [info.name for info in store.list("labels/")]
    units = {_unit(name) for name in labels}
    rejects = [info.name for info in store.list("rejects/") if _unit(info.name) in units]

    def frames(name: str) -> Iterable[str | None]:
        found: list[str | None] = _file(store, name).read(columns=["frame"])["frame"].to_pylist()
        return found

    with ThreadPoolExecutor(_READERS) as readers:
        found = readers.map(frames, [*labels, *rejects])
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
