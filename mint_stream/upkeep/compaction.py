"""Many small unit files copied into few large ones: `mint-stream compact`.

A generation holds every unit that was committed when it was begun. Its files are written first,
then its JSON is created: before that nobody sees it, from then on `read_labels` reads it, and the
units that were committed since from `labels/`. Cut off at any point, nothing is lost or doubled;
the next call removes what was left behind. The previous generation stays, for those who read it.
Units that stand in a record alone are taken over from it.
"""

from __future__ import annotations

import hashlib
import io
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mint_stream.bank.log import BANK_LOG_KEY, each
from mint_stream.input.grid import shard_of, unit_start
from mint_stream.output import schema
from mint_stream.output.generations import (
    FILE,
    FOLDER,
    MANIFEST,
    UNITS,
    CompactedError,
    CompactFile,
    Generation,
    Record,
    manifest_name,
    newest,
    read_file,
    record_of,
)
from mint_stream.output.lease import LeaseHeld
from mint_stream.output.names import labels_name, path_part, rejects_name
from mint_stream.store.errors import ObjectMissing
from mint_stream.store.store import Store

KEPT = 2
"""Generations on the store: the one that counts, and the one before for those who read it."""
_NONE = "__HIVE_DEFAULT_PARTITION__"
_AT_A_TIME = 256
"""Units in memory at a time, and rows in a row group and in a file."""
_GROUP_ROWS = 100_000
_FILE_ROWS = 2_000_000


@dataclass(frozen=True, kw_only=True)
class Compaction:
    """What a call did."""

    generation: Generation
    """The one that counts now."""
    written: bool
    """False if it held every committed unit before."""
    units: int


def compact(output: str, *, file_rows: int = _FILE_ROWS) -> Compaction | None:
    """Write a generation of all committed units, unless the newest one holds them already.

    A run may be writing to the output meanwhile. None for an output without a committed unit.
    Raises `StorageError`, and `LeaseHeld` if another compaction finished first.
    """
    store = Store(output)
    own = {_unit(info.name) for info in store.list("labels/")}
    current = newest(store)  # after the list: see `compacted`
    record = record_of(store, current)
    recorded = record.units if record else {}
    units = sorted(own | set(recorded))
    if not units:
        return None
    if current is not None and _units_of(store, current) == units:
        _clean_up(store, current.number)
        return Compaction(generation=current, written=False, units=len(units))
    number = current.number + 1 if current else 1
    generation = _write(store, number, sorted(own - set(recorded)), record, file_rows)
    if not store.create(manifest_name(number), generation.to_json()):
        raise LeaseHeld(
            f"another compaction of {output} wrote generation {number} at the same time; it "
            "counts, and this one is cleaned up by the next"
        )
    _clean_up(store, number)
    return Compaction(generation=generation, written=True, units=len(units))


def _units_of(store: Store, generation: Generation) -> list[str] | None:
    """The units of a generation; None where they cannot be told, or little else of them."""
    try:
        index = pq.read_table(io.BytesIO(read_file(store, generation, generation.units)))
    except (ObjectMissing, CompactedError):
        return None
    if index.column_names != UNITS.names:
        return None
    units: list[str] = index["unit"].to_pylist()
    return units


def _write(
    store: Store, number: int, own: list[str], record: Record | None, file_rows: int
) -> Generation:
    """The files of a generation. Until its JSON is there, nobody looks at them.

    own: units to be read from their own files; the others are those of the record.
    """
    folder = f"{FOLDER}{number:08d}-{secrets.token_hex(4)}/"
    labels = _Writer(store, f"{folder}labels/", file_rows, schema.LABELS)
    rejects = _Writer(store, f"{folder}rejects/", file_rows, schema.REJECTS)
    facts: list[dict[str, object]] = []
    if record is not None:
        _take_over(store, record, labels, rejects)
        facts += [{"unit": unit, **asdict(known)} for unit, known in record.units.items()]
    ends = _shard_ends(store)
    for unit, table in unit_tables(store, own, labels_name):
        metadata = table.schema.metadata or {}
        facts.append(
            {
                "unit": unit,
                "frames": int(metadata[b"mint.frames"]),
                "bank_log": metadata[BANK_LOG_KEY].decode(),
            }
        )
        for place, rows in _by_day_and_camera(placed(table, schema.LABELS)):
            labels.add(place, rows)
    for fact in facts:
        fact["shard_frames"] = ends.get(shard_of(str(fact["unit"])), fact.get("shard_frames"))
    # Listed after the labels: a unit's rejects are there before its labels are.
    rejected = {_unit(info.name) for info in store.list("rejects/")}
    for _, table in unit_tables(store, [unit for unit in own if unit in rejected], rejects_name):
        rejects.add("", placed(table, schema.REJECTS))
    index = _Writer(store, f"{folder}units/", len(facts) + 1, UNITS)
    facts.sort(key=lambda fact: str(fact["unit"]))
    index.add("", pa.Table.from_pylist(facts, schema=UNITS))
    (of_units,) = index.close()
    return Generation(
        number=number,
        labels=labels.close(),
        rejects=rejects.close(),
        units=of_units,
        record=record is not None,
    )


def _take_over(store: Store, record: Record, labels: _Writer, rejects: _Writer) -> None:
    """The rows of a record, partition by partition."""
    generation = record.generation
    for file in generation.labels:
        table = pq.read_table(io.BytesIO(read_file(store, generation, file)))
        # All of its rows lie in one place, which an older version may have named otherwise.
        for place, _ in _by_day_and_camera(table.slice(0, 1)):
            labels.add(place, table)
    for file in generation.rejects:
        rejects.add("", pq.read_table(io.BytesIO(read_file(store, generation, file))))


def _shard_ends(store: Store) -> dict[str, int]:
    """Frames of the shards whose markers say so."""
    names = [info.name.rpartition("/")[2] for info in store.list("shards/")]
    return {shard_of(name): unit_start(name) for name in names}


def unit_tables(
    store: Store, units: list[str], name_of: Callable[[str], str]
) -> Iterator[tuple[str, pa.Table]]:
    """Each unit with the table in its own file."""
    for first in range(0, len(units), _AT_A_TIME):
        some = units[first : first + _AT_A_TIME]
        tables = each(lambda unit: pq.read_table(io.BytesIO(store.read(name_of(unit)))), some)
        yield from zip(some, tables, strict=True)


def placed(table: pa.Table, kind: pa.Schema) -> pa.Table:
    """With the place of each row in its unit, and without what the metadata says of the unit."""
    position = pa.array(range(table.num_rows), schema.POSITION.type)
    return table.append_column(schema.POSITION, position).replace_schema_metadata(kind.metadata)


def _unit(name: str) -> str:
    return name.rpartition("/")[2].removesuffix(".parquet")


def _by_day_and_camera(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Hive-style folders with the rows that belong there, in their order."""
    days = pc.strftime(table["timestamp"], "%Y-%m-%d").to_pylist()
    places: defaultdict[str, list[int]] = defaultdict(list)
    for at, (day, camera) in enumerate(zip(days, table["camera"].to_pylist(), strict=True)):
        # Not `camera=`: the files have a column of that name, and with two of it many readers fail.
        name = _NONE if camera is None else path_part(camera)
        places[f"date={day or _NONE}/camera_folder={name}/"].append(at)
    for place, rows in places.items():
        yield place, table.take(pa.array(rows))


@dataclass
class _Open:
    """A file that is being written."""

    name: str
    sink: io.BytesIO
    writer: pq.ParquetWriter
    rows: int = 0


@dataclass
class _Writer:
    """Parquet files below a folder, one or more for each place."""

    store: Store
    folder: str
    file_rows: int
    fields: pa.Schema
    """What every file has, be it null: many readers go by the first file that they find."""
    _pending: dict[str, list[pa.Table]] = field(default_factory=lambda: defaultdict(list))
    _rows: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _open: dict[str, _Open] = field(default_factory=dict)
    _numbers: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _done: list[CompactFile] = field(default_factory=list)

    def add(self, place: str, table: pa.Table) -> None:
        """Rows for `place`, in order."""
        if not table.num_rows:
            return
        self._pending[place].append(table)
        self._rows[place] += table.num_rows
        if self._rows[place] >= min(_GROUP_ROWS, self.file_rows):
            self._flush(place)

    def close(self) -> tuple[CompactFile, ...]:
        """Write what is left; gives all files."""
        for place in list(self._pending):
            self._flush(place)
        for place in list(self._open):
            self._finish(place)
        return tuple(self._done)

    def _flush(self, place: str) -> None:
        if not self._pending[place]:
            return
        tables = [self.fields.empty_table(), *self._pending.pop(place)]
        table = pa.concat_tables(tables, promote_options="default")
        self._rows[place] = 0
        if place in self._open and not self._open[place].writer.schema.equals(table.schema):
            self._finish(place)  # later units have other columns beside those of the schema
        if place not in self._open:
            name = f"{self.folder}{place}part-{self._numbers[place]:05d}.parquet"
            self._numbers[place] += 1
            sink = io.BytesIO()
            writer = pq.ParquetWriter(
                sink, table.schema, compression="zstd", write_page_checksum=True
            )
            self._open[place] = _Open(name, sink, writer)
        file = self._open[place]
        file.writer.write_table(table)
        file.rows += table.num_rows
        if file.rows >= self.file_rows:
            self._finish(place)

    def _finish(self, place: str) -> None:
        file = self._open.pop(place)
        file.writer.close()
        data = file.sink.getvalue()
        if not self.store.create(file.name, data):
            raise CompactedError(f"{file.name} is there with other content: compact again")
        sha256 = hashlib.sha256(data).hexdigest()
        self._done.append(CompactFile(name=file.name, rows=file.rows, sha256=sha256))


def _clean_up(store: Store, number: int) -> None:
    """Remove generations older than the one before `number`, and what was never finished."""
    names = [info.name for info in store.list(FOLDER)]
    sound: dict[int, Generation] = {}
    stale: list[str] = []
    for name in names:
        match = MANIFEST.fullmatch(name)
        if match and int(match[1]) <= number:
            try:
                sound[int(match[1])] = Generation.from_json(store.read(name))
            except (ObjectMissing, ValueError):
                stale.append(name)
    kept = sorted(sound)[-KEPT:]
    stale += [manifest_name(n) for n in sound if n not in kept]
    # The JSON goes first: no generation is without its files.
    for name in stale:
        store.delete(name)
    referred = {file.name for n in kept for file in sound[n].files}
    for name in names:
        match = FILE.fullmatch(name)
        # One with a higher number is being written now.
        if match and int(match[2]) <= number and name not in referred:
            store.delete(name)
