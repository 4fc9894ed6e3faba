"""The compacted copy of an output: whole, and with the rows of its units, each once."""

from __future__ import annotations

import io
from collections import Counter

import pyarrow.parquet as pq

from mint_stream.output.generations import (
    MANIFEST,
    RECORD,
    CompactedError,
    CompactFile,
    Generation,
    RecordError,
    manifest_name,
    read_file,
)
from mint_stream.output.names import labels_name, rejects_name
from mint_stream.store.errors import ObjectMissing
from mint_stream.upkeep.listing import Listing
from mint_stream.upkeep.verify.findings import BRING_BACK, Findings, some
from mint_stream.upkeep.verify.rows import Rows

_ANEW = "delete the JSON of its generation and compact again: the unit files have every row"


def check_compacted(listing: Listing, rows: Rows, findings: Findings) -> None:
    """Every generation on the store."""
    known = {RECORD}
    numbers = [int(match[1]) for name in listing.compact if (match := MANIFEST.fullmatch(name))]
    for number in sorted(numbers):
        name = manifest_name(number)
        known.add(name)
        try:
            generation = Generation.from_json(listing.store.read(name))
        except (ObjectMissing, ValueError) as error:
            remedy = BRING_BACK if listing.record_lost else _ANEW
            findings.add(name, f"is not sound ({error})", remedy)
            continue
        known |= {file.name for file in generation.files}
        _check_generation(listing, generation, rows, findings)
    if left := sorted(set(listing.compact) - known):
        findings.note(
            f"{len(left)} files in compact/ are of no generation: one was not finished, or is "
            "being written; the next `compact` removes them"
        )


def _check_generation(
    listing: Listing, generation: Generation, rows: Rows, findings: Findings
) -> None:
    index = _columns(listing, generation, generation.units, ("unit",), findings)
    if index is None:
        return
    units = {unit for (unit,) in index}
    if lost := sorted(units - listing.labels):
        findings.add(
            labels_name(lost[0]),
            f"is missing, and {len(lost) - 1} others; {generation.name} has their rows",
            "bring them back from a backup or an older object version",
        )
    found: Counter[tuple[str, str]] = Counter()
    for name_of, files in ((labels_name, generation.labels), (rejects_name, generation.rejects)):
        for file in files:
            columns = _columns(listing, generation, file, ("unit", "frame"), findings)
            if columns is None:
                return
            found.update((name_of(unit), frame) for unit, frame in columns if frame is not None)
    names = {name_of(unit) for unit in units for name_of in (labels_name, rejects_name)}
    wanted = {(name, frame) for frame, name in rows.owners.items() if name in names}
    differing = sorted(frame for _, frame in found.keys() ^ wanted)
    differing += [frame for (_, frame), n in found.items() if n > 1]
    if differing:
        findings.add(
            generation.name,
            f"{len(differing):,} frames are not in it as in its units ({some(differing)})",
            _ANEW,
        )


def _columns(
    listing: Listing,
    generation: Generation,
    file: CompactFile,
    names: tuple[str, ...],
    findings: Findings,
) -> list[tuple[str, ...]] | None:
    """The values of these columns, row by row; None, with a finding, if the file is not sound."""
    try:
        data = io.BytesIO(read_file(listing.store, generation, file))
        table = pq.read_table(data, columns=list(names))
    except ObjectMissing:
        remedy = BRING_BACK if generation.record else _ANEW
        findings.add(file.name, "is missing, and a generation refers to it", remedy)
        return None
    except (CompactedError, RecordError):
        remedy = BRING_BACK if generation.record else _ANEW
        findings.add(file.name, "its content does not match the hash in its manifest", remedy)
        return None
    if table.num_rows != file.rows:
        findings.add(file.name, f"has {table.num_rows} rows; its manifest says {file.rows}", _ANEW)
        return None
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))
