"""Whether an output is what it must be, told from its objects alone and, if given, its input."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from mint_stream.input.discovery import discover
from mint_stream.input.left_out import LeftOut
from mint_stream.input.shards import read_ids
from mint_stream.output.generations import RECORD
from mint_stream.store.errors import StorageError
from mint_stream.store.store import Store
from mint_stream.upkeep.listing import Listing
from mint_stream.upkeep.verify.bank import check_bank
from mint_stream.upkeep.verify.findings import AGAIN, BRING_BACK, Finding, Findings, some
from mint_stream.upkeep.verify.generations import check_compacted
from mint_stream.upkeep.verify.rows import Rows, check_rows
from mint_stream.upkeep.verify.settings import check_settings


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was checked, and what was found."""

    output: str
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    checked: dict[str, int]
    """How many objects, units, labels, rejects, log objects and checkpoints were looked at."""

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        found = [{"object": f.object, "what": f.what, "remedy": f.remedy} for f in self.findings]
        return {
            "output": self.output,
            "clean": self.clean,
            "checked": self.checked,
            "findings": found,
            "notes": list(self.notes),
        }


def verify(
    output: str,
    *,
    input_url: str | None = None,
    image_column: str | None = None,
    id_column: str | None = None,
) -> Verdict:
    """Check everything that docs/guarantees.md promises of an output that no run is writing to.

    With `input_url` also that each frame id of the input is there, once, and no other. Raises
    `StorageError` where the output cannot be read, or the input not be listed, `ConfigError` for an
    input that is none.
    """
    store = Store(output)
    findings = Findings()
    listing = Listing.read(store)
    for name in listing.foreign:
        findings.add(name, "is not an object that a run writes", "move it elsewhere or delete it")
    for name in listing.probes:
        findings.note(f"{name} was left by a run that was killed at its start; it may be deleted")
    if "lease.json" in listing.single:
        findings.note("lease.json is there: a run is writing here, or was killed; look again then")
    if listing.record_lost is not None:
        findings.add(RECORD, f"cannot be followed: {listing.record_lost}", BRING_BACK)
    if listing.left:
        findings.note(
            f"{len(listing.left)} units of the record have files of their own as well, which do "
            "not count: `compact --remove-units` removes them"
        )
    settings = check_settings(store, findings)
    rows = check_rows(listing, settings, findings)
    kept = check_bank(listing, settings, rows, findings)
    check_compacted(listing, rows, findings)
    checked = {
        "objects": listing.objects,
        "units": len(listing.labels),
        "labels": rows.labels,
        "rejects": rows.rejects,
        "log objects": len(listing.logs),
        "checkpoints": len(kept),
    }
    if input_url is not None:
        unit_size = settings.unit_size if settings else 16
        files, members = LeftOut(), LeftOut()
        checked["input frames"] = _check_input(
            rows, input_url, unit_size, image_column, id_column, findings, files, members
        )
        for what, left_out in (("files", files), ("members of tars", members)):
            if left_out:
                findings.note(f"{what} of kinds that are not read, and are in no row: {left_out}")
                checked[f"{what} that are not read"] = len(left_out)
    return Verdict(
        output=output,
        findings=tuple(findings.found),
        notes=tuple(findings.notes),
        checked=checked,
    )


def _check_input(
    rows: Rows,
    input_url: str,
    unit_size: int,
    image_column: str | None,
    id_column: str | None,
    findings: Findings,
    files: LeftOut,
    members: LeftOut,
) -> int:
    """Every id of the input is in `rows` and no other; gives their number.

    What is not read is counted in `files` and `members`."""
    wanted: set[str] = set()
    for shard in discover(input_url, unit_size=unit_size, left_out=files):
        if shard.uri in rows.replaced:
            findings.note(f"{shard.uri} was replaced and refused: its frames were not compared")
            wanted |= {frame for frame in rows.owners if frame.startswith(f"{shard.uri}#")}
            continue
        columns = {"image_column": image_column, "id_column": id_column}
        try:
            ids = list(read_ids(shard, **columns, left_out=members))
        except StorageError as error:
            findings.add(
                shard.uri,
                f"its frames could not be compared: {error}",
                f"make it readable (or take it out of the input) and {AGAIN}, then verify again",
            )
            wanted |= {frame for frame in rows.owners if frame.startswith(f"{shard.uri}#")}
            continue
        wanted.update(ids)
        missing = [frame for frame in ids if frame not in rows.owners]
        if missing:
            findings.add(
                shard.uri,
                f"{len(missing)} of its {len(ids)} frames are neither in labels/ nor in rejects/ "
                f"({some(missing)})",
                AGAIN,
            )
    surplus: defaultdict[str, list[str]] = defaultdict(list)
    for frame, name in rows.owners.items():
        if frame not in wanted:
            surplus[name].append(frame)
    for name, frames in sorted(surplus.items()):
        findings.add(
            name,
            f"{len(frames)} of its frames are not in the input ({some(frames)})",
            "give the input that it was made of; if that has changed since, this is no damage",
        )
    return len(wanted)
