"""Labels, rejects and markers: every frame once, in files that are what their names say."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mint_stream.bank.log import BANK_LOG_KEY, each
from mint_stream.input.grid import ShardProgress, shard_of, unit_id
from mint_stream.labeler.budget import BUDGET
from mint_stream.method.guard import NO_GUARD
from mint_stream.output import schema
from mint_stream.output.generations import RecordError, UnitFacts, recorded_tables
from mint_stream.output.names import (
    labels_name,
    partial_name,
    rejects_name,
    relabelled_name,
    shard_end_name,
)
from mint_stream.output.settings import Settings
from mint_stream.store.errors import ObjectMissing, StorageError
from mint_stream.store.store import Store
from mint_stream.upkeep.listing import Listing
from mint_stream.upkeep.verify.findings import AGAIN, BRING_BACK, Findings, some

_AT_A_TIME = 256
"""Tables in memory."""
_FRAMES_KEY = b"mint.frames"
_ANEW = f"{BRING_BACK}, or delete it and {AGAIN}: its frames are labelled anew"
_ANSWERS = ("label", "source_label")
_PASSING = ("ObjectMissing", "ObjectChanged")
"""Errors that are no fault of an image's or a shard's bytes."""
_PINNED = {"model": "model_hash", "classes": "classes_hash"}
"""Columns of the labels, and what in `run.json` they must agree with."""


@dataclass
class Rows:
    """What the readable labels and rejects of committed units say."""

    owners: dict[str, str] = field(default_factory=dict)
    """Each frame id with the object that it stands in."""
    labels: int = 0
    rejects: int = 0
    replaced: set[str] = field(default_factory=set)
    """Shards of which a newer version was refused."""
    log_names: dict[str, str] = field(default_factory=dict)
    """For each unit its bank log object, "" for none; units that cannot be read are not in it."""
    adapted: Counter[str] = field(default_factory=Counter)
    """Frames with an adapted answer, by bank scope."""
    guarded: bool = False
    """Whether a guard watched: then the bank may have moved for a frame whose answer it refused."""
    frames_of: dict[str, int] = field(default_factory=dict)
    """Frames of each unit, labelled or rejected, as its file says."""


def check_rows(listing: Listing, settings: Settings | None, findings: Findings) -> Rows:
    """Read every labels and rejects object, and hold them against each other and the markers."""
    rows = Rows()
    doubled: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    rejects_of: dict[str, int] = {}
    for unit, name, read in _tables(listing, listing.rejects, "rejects", findings):
        if unit not in listing.labels:
            findings.add(
                name,
                "its unit has no labels object: a run was cut off here, or the labels are gone",
                AGAIN,
            )
            continue
        table = _sound(name, read, schema.REJECTS, findings)
        if table is not None:
            _check_unit_column(name, unit, table, findings)
            rejects_of[unit] = table.num_rows
            rows.rejects += table.num_rows
            refused = pc.equal(table["error_type"], "ShardReplaced")
            rows.replaced.update(table.filter(refused)["shard"].to_pylist())
            _check_given_up(listing, unit, name, table, findings)
            _take_frames(rows, doubled, name, table)
    for unit, name, read in _tables(listing, listing.labels, "labels", findings):
        table = _sound(name, read, schema.LABELS, findings)
        if table is not None:
            _check_unit_column(name, unit, table, findings)
            _check_labels(rows, unit, name, table, rejects_of.get(unit, 0), findings)
            if settings is not None:
                _check_against_settings(name, table, settings, findings)
            _take_frames(rows, doubled, name, table)
    _check_relabelled(listing, rows, settings, findings)
    for (name, other), frames in sorted(doubled.items()):
        where = "twice in it" if name == other else f"in {other} as well"
        findings.add(
            name,
            f"{len(frames)} of its frames stand {where} ({some(frames)})",
            f"find out which of the two is a copy and delete that one; else {BRING_BACK}",
        )
    if settings is not None:
        _check_markers(listing, rows, settings.unit_size, findings)
    return rows


def _check_given_up(
    listing: Listing, unit: str, name: str, table: pa.Table, findings: Findings
) -> None:
    """Nothing is rejected that was only out of reach, as earlier versions did."""
    passing = pc.is_in(table["error_type"], pa.array(_PASSING))
    given_up = table.filter(pc.and_(pc.equal(table["stage"], "read"), passing))
    if given_up.num_rows == 0:
        return
    shard = shard_of(unit)
    ends = [shard_end_name(shard, end) for end in sorted(listing.shard_frames.get(shard, ()))]
    remedy = (
        f"if it is there now, delete {', '.join([name, *ends, labels_name(unit)])}, and {AGAIN}: "
        "what was given up is labelled then"
    )
    if listing.record is not None and unit in listing.record.units:
        remedy = "label it into another output: the compacted copy is the record of this one"
    findings.add(
        name,
        f"gives up {some(given_up['shard'].unique().to_pylist())}, which was only out of reach "
        f"({given_up['message'][0]})",
        remedy,
    )


def _check_relabelled(
    listing: Listing, rows: Rows, settings: Settings | None, findings: Findings
) -> None:
    """Rows that were labelled again are of frames that have a label."""
    for _, name, read in _own_tables(listing.store, sorted(listing.relabelled), relabelled_name):
        table = _sound(name, read, schema.LABELS, findings)
        if table is None:
            continue
        if settings is not None:
            _check_against_settings(name, table, settings, findings)
        frames = table["frame"].to_pylist()
        labelled = [f for f in frames if rows.owners.get(f, "").startswith("labels/")]
        others = sorted({str(frame) for frame in frames} - set(labelled))
        if others or len(set(frames)) < len(frames):
            findings.add(
                name,
                f"has rows for frames that have no label, or twice ({some(others or frames)})",
                "delete it: the rows in labels/ then stand, and --relabel-suspect makes it anew",
            )


def _tables(
    listing: Listing, units: set[str], folder: Literal["labels", "rejects"], findings: Findings
) -> Iterator[tuple[str, str, pa.Table | str]]:
    """Each unit with its object's name and table; for one that cannot be read, why not.

    Units of the record come from its files, under the names that their own objects had.
    """
    name_of = {"labels": labels_name, "rejects": rejects_name}[folder]
    recorded = listing.record.units if listing.record else {}
    yield from _own_tables(listing.store, sorted(units - set(recorded)), name_of)
    if listing.record is not None:
        try:
            for unit, table in recorded_tables(listing.store, listing.record, folder):
                yield unit, name_of(unit), _with_facts(table, folder, recorded[unit])
        except (RecordError, ObjectMissing) as error:
            findings.add(listing.record.generation.name, f"has lost rows: {error}", BRING_BACK)


def _own_tables(
    store: Store, units: list[str], name_of: Callable[[str], str]
) -> Iterator[tuple[str, str, pa.Table | str]]:
    def read(unit: str) -> pa.Table | str:
        try:
            file = io.BytesIO(store.read(name_of(unit)))
            return pq.read_table(file, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, StorageError):
                raise
            return str(error)

    for first in range(0, len(units), _AT_A_TIME):
        some_units = units[first : first + _AT_A_TIME]
        for unit, table in zip(some_units, each(read, some_units), strict=True):
            yield unit, name_of(unit), table


def _with_facts(
    table: pa.Table, folder: Literal["labels", "rejects"], facts: UnitFacts
) -> pa.Table:
    """With the metadata that the unit's own file had."""
    if folder == "rejects":
        return table.replace_schema_metadata(schema.REJECTS.metadata)
    own = {_FRAMES_KEY: str(facts.frames), BANK_LOG_KEY: facts.bank_log}
    return table.replace_schema_metadata({**schema.LABELS.metadata, **own})


def _sound(
    name: str, table: pa.Table | str, kind: pa.Schema, findings: Findings
) -> pa.Table | None:
    """`table` if it was read and has the fields of `kind`; else None, with a finding."""
    if isinstance(table, str):
        findings.add(name, f"cannot be read as Parquet ({table})", _ANEW)
        return None
    metadata = table.schema.metadata or {}
    wrong = [key.decode() for key, value in kind.metadata.items() if metadata.get(key) != value]
    for field_ in kind:
        there = field_.name in table.schema.names
        if not there and field_.name in schema.LATER:
            table = table.append_column(field_, pa.nulls(table.num_rows, field_.type))
            continue
        if not there or table.schema.field(field_.name).type != field_.type:
            wrong.append(field_.name)
    if wrong:
        findings.add(
            name,
            f"is not a {kind.metadata[b'mint.kind'].decode()} file of schema version "
            f"{schema.SCHEMA_VERSION}: {', '.join(wrong)} missing or of another kind",
            _ANEW,
        )
    return None if wrong else table


def _check_unit_column(name: str, unit: str, table: pa.Table, findings: Findings) -> None:
    others = sorted(set(table["unit"].to_pylist()) - {unit}, key=str)
    if others:
        findings.add(name, f"has rows of unit {some([str(u) for u in others])}", _ANEW)


def _check_labels(
    rows: Rows, unit: str, name: str, table: pa.Table, rejects: int, findings: Findings
) -> None:
    metadata = table.schema.metadata or {}
    try:
        frames = int(metadata[_FRAMES_KEY])
        rows.log_names[unit] = metadata[BANK_LOG_KEY].decode()
    except (KeyError, ValueError) as error:
        findings.add(name, f"its metadata lacks a readable {error}", _ANEW)
        return
    rows.frames_of[unit] = frames
    if frames != table.num_rows + rejects:
        findings.add(
            name,
            f"says that its unit has {frames} frames; there are {table.num_rows} labels and "
            f"{rejects} rejects",
            f"{BRING_BACK} (this one or {rejects_name(unit)}), or delete both and {AGAIN}",
        )
    if table["frame"].null_count:
        findings.add(name, f"{table['frame'].null_count} rows have no frame id", _ANEW)
    for column in ("confidence", "source_confidence"):
        sane = pc.and_(
            pc.greater_equal(table[column], 0.0), pc.less_equal(table[column], 1.0 + 1e-5)
        )
        if table.num_rows and not pc.all(pc.fill_null(sane, False)).as_py():
            findings.add(name, f"{column} is not in [0, 1] everywhere", _ANEW)
    rows.labels += table.num_rows
    answered = table.filter(pc.or_(table["adapted"], pc.is_valid(table["adapted_label"])))
    rows.adapted.update(answered["bank_scope"].to_pylist())
    rows.guarded |= any(guard not in (NO_GUARD, BUDGET) for guard in table["guard"].to_pylist())


def _check_against_settings(
    name: str, table: pa.Table, settings: Settings, findings: Findings
) -> None:
    pinned = {column: settings.values[key] for column, key in _PINNED.items()}
    pinned["preset"] = settings.preset.get("name")
    for column, wanted in pinned.items():
        others = sorted(set(table[column].to_pylist()) - {wanted}, key=str)
        if others:
            findings.add(
                name,
                f"{column} is {some([str(o) for o in others])} where run.json says {wanted}",
                "the labels or run.json are of another run: bring back the right one",
            )
    answers = {label for column in _ANSWERS for label in table[column].to_pylist()}
    answers.update(table["adapted_label"].drop_null().to_pylist())
    allowed = {*settings.classes, *([None] if settings.values.get("abstention") else [])}
    strange = sorted(str(label) for label in answers - allowed)
    if strange:
        findings.add(name, f"has labels that are no class of run.json: {some(strange)}", _ANEW)


def _take_frames(
    rows: Rows, doubled: defaultdict[tuple[str, str], list[str]], name: str, table: pa.Table
) -> None:
    for frame in table["frame"].drop_null().to_pylist():
        if frame in rows.owners:
            doubled[name, rows.owners[frame]].append(frame)
        else:
            rows.owners[frame] = name


def _check_markers(listing: Listing, rows: Rows, unit_size: int, findings: Findings) -> None:
    """Units cover their shards as the markers in `shards/` and `partial/` say."""
    for unit in sorted(listing.partial - listing.labels):
        findings.add(
            partial_name(unit),
            "marks a unit that has no labels: a run was cut off here, or the labels are gone",
            AGAIN,
        )
    starts: defaultdict[str, dict[int, int]] = defaultdict(dict)
    for unit in listing.labels:
        shard, _, start = unit.rpartition("-")
        if unit in rows.frames_of:
            starts[shard][int(start)] = rows.frames_of[unit]
        else:  # unreadable, which is a finding of its own
            starts[shard][int(start)] = unit_size - int(start) % unit_size
    for shard in sorted({*starts, *listing.shard_frames}):
        ends = listing.shard_frames.get(shard, set())
        if len(ends) > 1:
            findings.add(
                shard_end_name(shard, max(ends)),
                f"says that the shard has {max(ends)} frames; another marker says {min(ends)}",
                f"delete both and {AGAIN}",
            )
            continue
        end = next(iter(ends), None)
        _check_shard(shard, ShardProgress(unit_size, starts[shard]), end, listing, findings)


def _check_shard(
    shard: str, progress: ShardProgress, end: int | None, listing: Listing, findings: Findings
) -> None:
    size = progress.unit_size
    for start, frames in sorted(progress.frames_from.items()):
        unit = unit_id(shard, start)
        room = progress.cell(start) + size - start
        if frames > room:
            findings.add(
                labels_name(unit), f"has {frames} frames where its unit has room for {room}", _ANEW
            )
        elif frames < room and unit not in listing.partial and end not in (0, start + frames):
            said = "no marker says why" if end is None else f"the shard has {end}"
            findings.add(
                labels_name(unit),
                f"has {frames} frames of the {room} that follow frame {start}, and {said}",
                f"{BRING_BACK} (the marker in partial/ or shards/), or delete it and {AGAIN}",
            )
        if end is not None and start >= max(end, 1):
            findings.add(
                labels_name(unit),
                f"begins at frame {start} of a shard that has {end}",
                f"{BRING_BACK} ({shard_end_name(shard, end)}), or delete it",
            )
    if end is None or progress.is_complete(end):
        return
    if not progress.frames_from:
        findings.add(
            shard_end_name(shard, end),
            "marks the end of a shard that has no labels: a run was cut off, or they are gone",
            AGAIN,
        )
        return
    for cell in range(0, max(end, 1), size):
        until = progress.labelled_until(cell)
        if until < min(cell + size, end):
            findings.add(
                labels_name(unit_id(shard, until)),
                f"is missing: {shard_end_name(shard, end)} says that the shard has {end} frames",
                AGAIN,
            )
