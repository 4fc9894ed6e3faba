"""The objects of an output by what their names say they are; see docs/formats.md."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field

from mint_stream.bank.files import LOG_FOLDER, BankFileError, LogName
from mint_stream.bank.live import LIVE
from mint_stream.input.grid import shard_of
from mint_stream.output.generations import FILE, MANIFEST, RECORD, Record, RecordError, read_record
from mint_stream.output.names import LEFT_OUT
from mint_stream.store.store import Store

UNIT = re.compile(r"[0-9a-f]{20}-[0-9]{8,}")
_OF_UNITS = re.compile(
    rf"(labels|rejects|relabelled)/({UNIT.pattern})\.parquet|(partial|shards)/({UNIT.pattern})"
)
_CHECKPOINT = re.compile(r"bank/checkpoints/[0-9]{12,}-[0-9a-f]{12}\.(parquet|json)")
_PROBE = re.compile(r"\.mint-stream-probe-[0-9a-f]{16}")
_SINGLE = {"run.json", "lease.json", "costs.jsonl", LEFT_OUT, LIVE}


@dataclass
class Listing:
    """Names of objects, read from a store once."""

    store: Store
    labels: set[str] = field(default_factory=set)
    """Units that are committed: with an object in `labels/`, or in the record."""
    rejects: set[str] = field(default_factory=set)
    """Units with an object in `rejects/` that counts: not those of the record."""
    relabelled: set[str] = field(default_factory=set)
    """Units with an object in `relabelled/`."""
    record: Record | None = None
    """The generation whose units need no objects of their own."""
    record_lost: str | None = None
    """Why it cannot be read, where it cannot."""
    left: set[str] = field(default_factory=set)
    """Units of the record that have objects in `labels/` or `rejects/` all the same."""
    partial: set[str] = field(default_factory=set)
    """Units that are marked as cut short."""
    shard_frames: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    """What the markers in `shards/` say of each shard: one number, unless something is wrong."""
    telling: list[str] = field(default_factory=list)
    """Names of those markers that say what was left out of their shard."""
    logs: set[str] = field(default_factory=set)
    """Names of bank log objects."""
    probes: list[str] = field(default_factory=list)
    """What a run that was killed in its first second may leave behind."""
    foreign: list[str] = field(default_factory=list)
    """Names that no run writes."""
    single: set[str] = field(default_factory=set)
    """Of `run.json`, `lease.json`, `left_out.json`, `bank/live.json` and `costs.jsonl` (of an
    evaluation), those that
    are there."""
    compact: list[str] = field(default_factory=list)
    """Names in `compact/`: generations and their files."""
    size_bytes: int = 0
    objects: int = 0

    @classmethod
    def read(cls, store: Store) -> Listing:
        """List the whole output. Raises `StorageError`."""
        listing = cls(store)
        for info in store.list():
            listing.objects += 1
            listing.size_bytes += info.size
            listing._sort_in(info.name)
            if info.size and info.name.startswith("shards/"):
                listing.telling.append(info.name)
        listing._add_record()
        return listing

    def _add_record(self) -> None:
        try:
            self.record = read_record(self.store)
        except RecordError as error:
            self.record_lost = str(error)
        if self.record is None:
            return
        units = self.record.units
        self.left = (self.labels | self.rejects) & set(units)
        self.rejects -= set(units)
        self.labels |= set(units)
        for unit, facts in units.items():
            if facts.shard_frames is not None:
                self.shard_frames[shard_of(unit)].add(facts.shard_frames)

    def _sort_in(self, name: str) -> None:
        if match := _OF_UNITS.fullmatch(name):
            folder, unit = match[1] or match[3], match[2] or match[4]
            if folder == "shards":
                shard, _, frames = unit.rpartition("-")
                self.shard_frames[shard].add(int(frames))
            else:
                units: set[str] = getattr(self, folder)
                units.add(unit)
        elif name.startswith(LOG_FOLDER) and _is_log(name):
            self.logs.add(name)
        elif name == RECORD or MANIFEST.fullmatch(name) or FILE.fullmatch(name):
            self.compact.append(name)
        elif _PROBE.fullmatch(name):
            self.probes.append(name)
        elif name in _SINGLE:
            self.single.add(name)
        elif not _CHECKPOINT.fullmatch(name):
            self.foreign.append(name)


def _is_log(name: str) -> bool:
    try:
        return bool(UNIT.fullmatch(LogName.parse(name).unit))
    except BankFileError:
        return False
