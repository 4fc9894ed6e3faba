"""The compacted copy of an output: few large files beside, or in place of, those of its units.

    compact/<number>.json               a generation: which files, and which units stand in them
    compact/<number>-<digits>/...       its files; they never change
    compact/record                      unit files were removed: the copy is no mere copy any more

A generation exists once its JSON does, which is created, never overwritten; the highest number
counts. Unless somebody asks for it unit files stay where they are, the record of what is committed,
and whoever reads `labels/*.parquet` sees every row once, whatever happens in `compact/`.

Once a generation is a *record*, so is each one after it, and what it says of its units counts,
whether or not they have files of their own. So unit files may go in any order, at any time, and a
file that comes back (an attempt that was cut off long ago) changes nothing. Whoever wants to know
what is committed lists `labels/` first and asks for the record then: what is not in the list any
more is in the record.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from mint_stream.output import schema
from mint_stream.store.errors import ObjectMissing, StorageError
from mint_stream.store.store import Store

FOLDER = "compact/"
RECORD = f"{FOLDER}record"
"""Marker, made before the first unit file is removed; it says so even if a manifest is damaged."""
UNITS = pa.schema(
    [
        ("unit", pa.string()),
        ("frames", pa.int64()),
        ("bank_log", pa.string()),
        ("shard_frames", pa.int64()),
    ]
)
MANIFEST = re.compile(rf"{FOLDER}([0-9]{{8,}})\.json")
FILE = re.compile(rf"({FOLDER}([0-9]{{8,}})-[0-9a-f]{{8}}/).+\.parquet")


class CompactedError(StorageError):
    """A generation that is not what its manifest says. The message names what is damaged."""


class RecordError(StorageError):
    """The same of a record: what is lost there stands nowhere else."""


@dataclass(frozen=True, kw_only=True)
class CompactFile:
    """One Parquet file of a generation."""

    name: str
    rows: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What the JSON of a generation says."""

    number: int
    labels: tuple[CompactFile, ...]
    rejects: tuple[CompactFile, ...]
    units: CompactFile
    """A table of the units whose rows stand in `labels` and `rejects`; see `UNITS`."""
    record: bool = False
    """Whether the files of its units may have been removed."""
    schema_version: int = schema.SCHEMA_VERSION

    @property
    def name(self) -> str:
        """Of its JSON."""
        return manifest_name(self.number)

    @property
    def folder(self) -> str:
        """Where its files are."""
        match = FILE.fullmatch(self.units.name)
        return match[1] if match else FOLDER

    @property
    def files(self) -> tuple[CompactFile, ...]:
        """All of them."""
        return (*self.labels, *self.rejects, self.units)

    def to_json(self) -> bytes:
        """With a hash over itself."""
        values = asdict(self)
        return json.dumps({**values, "sha256": _hash_of(values)}, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Generation:
        """Raises `ValueError` unless `data` is what `to_json` gave."""
        values = json.loads(data)
        if not isinstance(values, dict) or values.pop("sha256", None) != _hash_of(values):
            raise ValueError("its hash does not match its content")
        try:
            for kind in ("labels", "rejects"):
                values[kind] = tuple(CompactFile(**file) for file in values[kind])
            return cls(**{**values, "units": CompactFile(**values["units"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"it has other fields than this version's ({error})") from error


@dataclass(frozen=True, kw_only=True)
class UnitFacts:
    """What a generation says of a unit beside its rows."""

    frames: int
    """With the rejected ones."""
    bank_log: str
    """Log object that belongs to it, "" for none."""
    shard_frames: int | None
    """Frames of its shard, where that was read to its end."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """A generation that is the record of what is committed, and its units."""

    generation: Generation
    units: dict[str, UnitFacts]


def manifest_name(number: int) -> str:
    """The JSON of generation `number`."""
    return f"{FOLDER}{number:08d}.json"


def newest(store: Store, names: Iterable[str] | None = None) -> Generation | None:
    """The generation that counts; None where there is none.

    names: of the objects in `compact/`, where they are known. Raises `CompactedError` if its
    manifest is damaged (`RecordError` where no other has its rows), `StorageError` as the store
    does.
    """
    if names is None:
        names = [info.name for info in store.list(FOLDER)]
    names = list(names)
    numbers = [int(match[1]) for name in names if (match := MANIFEST.fullmatch(name))]
    recorded = RECORD in names
    generation = None
    if numbers:
        name = manifest_name(max(numbers))
        try:
            generation = Generation.from_json(store.read(name))
        except ObjectMissing:  # a newer one has replaced it
            return newest(store)
        except ValueError as error:
            raise _damaged(f"{store.uri(name)} is damaged: {error}", recorded) from error
    if recorded and (generation is None or not generation.record):
        raise _damaged(f"the newest manifest in {store.uri(FOLDER)} is gone", recorded)
    return generation


def read_record(store: Store) -> Record | None:
    """The record of what is committed; None while every unit has files of its own.

    List `labels/` first. Raises `RecordError` if it cannot be read, `StorageError` as the store
    does.
    """
    try:
        generation = newest(store)
    except CompactedError:
        return None
    try:
        return record_of(store, generation)
    except RecordError:
        if newest(store) != generation:  # compacted twice since
            return read_record(store)
        raise


def record_of(store: Store, generation: Generation | None) -> Record | None:
    """What `generation` is the record of, if it is one. Raises `RecordError`."""
    if generation is None or not generation.record:
        return None
    try:
        index = pq.read_table(io.BytesIO(read_file(store, generation, generation.units)))
    except ObjectMissing as error:
        missing = f"{store.uri(generation.units.name)} is missing"
        raise _damaged(missing, recorded=True) from error
    return Record(generation=generation, units=facts_of(index))


def recorded_tables(
    store: Store, record: Record, folder: Literal["labels", "rejects"]
) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each unit of a record, in their order: what its own file had.

    In `labels` every unit, in `rejects` those that have some. Raises as `read_file` does.
    """
    kind = {"labels": schema.LABELS, "rejects": schema.REJECTS}[folder]
    files: tuple[CompactFile, ...] = getattr(record.generation, folder)
    tables = [kind.append(schema.POSITION).empty_table()]
    for file in files:
        data = io.BytesIO(read_file(store, record.generation, file))
        tables.append(pq.read_table(data, page_checksum_verification=True))
    table = pa.concat_tables(tables, promote_options="default")
    table = table.sort_by([("unit", "ascending"), (schema.POSITION.name, "ascending")])
    units = table["unit"].to_pylist()
    table = table.drop_columns([schema.POSITION.name])
    first = 0
    for unit, rows in groupby(units):
        count = len(list(rows))
        yield unit, table.slice(first, count)
        first += count
    if folder == "labels":
        for unit in sorted(record.units.keys() - set(units)):
            yield unit, table.slice(0, 0)


def facts_of(index: pa.Table) -> dict[str, UnitFacts]:
    """The rows of a `UNITS` table by unit."""
    return {row.pop("unit"): UnitFacts(**row) for row in index.to_pylist()}


def read_file(store: Store, generation: Generation, file: CompactFile) -> bytes:
    """A file of a generation.

    Raises `ObjectMissing`, or if it was changed `CompactedError` (`RecordError` in a record).
    """
    data = store.read(file.name)
    if hashlib.sha256(data).hexdigest() != file.sha256:
        changed = f"{store.uri(file.name)} does not match the hash in {generation.name}"
        raise _damaged(changed, generation.record)
    return data


def _damaged(what: str, recorded: bool) -> StorageError:
    if recorded:
        return RecordError(
            f"{what}; unit files were removed, so that nothing else has these rows: bring it back "
            "from a backup or an older object version"
        )
    return CompactedError(f"{what}; delete the manifest, and compact again: no row is lost")


def _hash_of(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
