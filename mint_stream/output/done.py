"""What an output holds already: its committed units, and the ids of their frames."""

from __future__ import annotations

import functools
import io
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

from mint_stream.input.grid import ShardProgress, address, shard_of, unit_id, version
from mint_stream.output.generations import Record, read_file, read_record
from mint_stream.output.names import labels_name, shard_end_name
from mint_stream.store.errors import ObjectMissing, StorageError
from mint_stream.store.store import Store

_READERS = 16
"""Objects that are fetched at the same time: reading small objects waits on latency alone."""


def load_done(store: Store, unit_size: int, *, of: str = "") -> Done:
    """What is committed in an output, from the names of its objects.

    of: with what the ids of the shards begin that are asked for. Raises `StorageError`.
    """

    def names(prefix: str) -> list[str]:
        return [info.name for info in store.list(prefix + of)]

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


class Done:
    """The committed units of an output, by shard.

    Args:
        unit_size: frames in a grid cell.
        labels, shards, partial: names of the objects below these prefixes.
        frames_of: number of frames in a committed unit; asked only for those marked partial.
    """

    def __init__(
        self,
        unit_size: int,
        *,
        labels: Iterable[str] = (),
        shards: Iterable[str] = (),
        partial: Iterable[str] = (),
        frames_of: Callable[[str], int] | None = None,
    ) -> None:
        self.unit_size = unit_size
        self._shards: dict[str, ShardProgress] = {}
        self._frames = dict(_split(name) for name in shards)
        self._by_address: defaultdict[str, set[str]] = defaultdict(set)
        self.units: set[str] = set()
        cut = {_stem(name) for name in partial}
        for name in labels:
            shard, start = _split(name)
            unit = unit_id(shard, start)
            progress = self._shards.setdefault(shard, ShardProgress(unit_size))
            whole = progress.cell(start) + unit_size - start
            asked = unit in cut and frames_of is not None
            progress.frames_from[start] = frames_of(unit) if asked and frames_of else whole
            self._by_address[address(shard)].add(shard)
            self.units.add(unit)

    def progress(self, shard: str) -> ShardProgress:
        """What is committed of `shard`."""
        return self._shards.get(shard, ShardProgress(self.unit_size))

    def frames_in(self, shard: str) -> int | None:
        """Number of frames of a shard that was read to its end before."""
        return self._frames.get(shard)

    def is_complete(self, shard: str) -> bool:
        """Whether `shard` was read to its end and all of its frames are in committed units."""
        frames = self._frames.get(shard)
        return frames is not None and self.progress(shard).is_complete(frames)

    def replaced(self, shard: str) -> bool:
        """Whether another version of the same address was labelled, in whole or in part."""
        return bool(self._by_address.get(address(shard), set()) - {shard})

    def known_elsewhere(self, shard: str) -> bool:
        """Whether the same content was labelled under another address, and none under this one."""
        return version(shard) in self._versions and address(shard) not in self._by_address

    @functools.cached_property
    def _versions(self) -> set[str]:
        return {version(shard) for shard in self._shards}

    def is_settled(self, shard: str) -> bool:
        """Whether `shard`, or another version of it, is complete."""
        return any(map(self.is_complete, self._by_address.get(address(shard), ())))

    @property
    def frames(self) -> int:
        """Number of frames in committed units, labelled or rejected."""
        return sum(p.frames_done(self._frames.get(shard)) for shard, p in self._shards.items())


def _stem(name: str) -> str:
    return name.rpartition("/")[2].removesuffix(".parquet")


def _split(name: str) -> tuple[str, int]:
    shard, _, number = _stem(name).rpartition("-")
    return shard, int(number)
