"""How two outputs differ: `mint-stream diff`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mint_stream.bank import checkpoint
from mint_stream.bank.exchange import banks_digest, differing_entries
from mint_stream.output.read import read_labels, read_rejects
from mint_stream.output.settings import Settings, differences, read_settings
from mint_stream.store.store import Store
from mint_stream.upkeep.contents import counted
from mint_stream.upkeep.verify.bank import banks_in

EXAMPLES = 10
_COMPARED = ("frame", "camera", "label", "confidence", "source_label")


@dataclass(frozen=True, kw_only=True)
class Changed:
    """A frame with another label."""

    frame: str
    camera: str | None
    a: str | None
    """None where there is no label."""
    b: str | None
    confidence_a: float
    confidence_b: float


@dataclass(frozen=True, kw_only=True)
class BankDiff:
    """The newest checkpoints of two outputs, where both have one."""

    seq_a: int | None
    seq_b: int | None
    same: bool
    """Bit for bit, or none in either."""
    entries: dict[str, int] = field(default_factory=dict)
    """For each scope, the entries of which any bit differs."""


@dataclass(frozen=True, kw_only=True)
class Diff:
    """What differs between the outputs `a` and `b`."""

    a: str
    b: str
    settings: tuple[tuple[str, Any, Any], ...]
    both: int
    """Frames labelled in both."""
    only_a: tuple[str, ...]
    """Frames, labelled or rejected, that stand in `a` alone."""
    only_b: tuple[str, ...]
    rejected_in_b: tuple[str, ...]
    """Frames labelled in `a` and rejected in `b`."""
    rejected_in_a: tuple[str, ...]
    labels: int
    """Frames whose labels differ."""
    source_labels: int
    """Frames whose frozen answers differ."""
    confidence: float
    """Largest difference of the confidence in the same label."""
    by_label: tuple[tuple[str | None, str | None, int], ...]
    """Label in `a`, label in `b`, frames."""
    by_camera: tuple[tuple[str | None, int], ...]
    examples: tuple[Changed, ...]
    """Those first of which `a` was most certain."""
    bank: BankDiff

    @property
    def same(self) -> bool:
        """Whether nothing differs but the time of labelling."""
        frames = (self.only_a, self.only_b, self.rejected_in_a, self.rejected_in_b)
        rows = self.labels or self.source_labels or self.confidence
        return not (self.settings or any(frames) or rows) and self.bank.same

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**dataclasses.asdict(self), "same": self.same}


def compare(a: str, b: str) -> Diff:
    """Hold two outputs against each other, frame by frame. Raises `StorageError`."""
    labels_a, labels_b = (read_labels(url).select(list(_COMPARED)) for url in (a, b))
    rejects_a, rejects_b = (_frames(read_rejects(url)) for url in (a, b))
    frames_a, frames_b = _frames(labels_a), _frames(labels_b)
    joined = labels_a.join(labels_b, "frame", join_type="inner", right_suffix="_b").combine_chunks()
    # No label is an answer too; a class has no empty name.
    differs = pc.not_equal(*(pc.fill_null(joined[name], "") for name in ("label", "label_b")))
    changed = joined.filter(differs)
    return Diff(
        a=a,
        b=b,
        settings=tuple(differences(read_settings(Store(a)), read_settings(Store(b)))),
        both=joined.num_rows,
        only_a=tuple(sorted((frames_a | rejects_a) - frames_b - rejects_b)),
        only_b=tuple(sorted((frames_b | rejects_b) - frames_a - rejects_a)),
        rejected_in_b=tuple(sorted(frames_a & rejects_b)),
        rejected_in_a=tuple(sorted(frames_b & rejects_a)),
        labels=changed.num_rows,
        source_labels=pc.sum(pc.not_equal(joined["source_label"], joined["source_label_b"])).as_py()
        or 0,
        confidence=_largest_difference(joined.filter(pc.invert(differs))),
        by_label=tuple(counted(changed, "label", "label_b")),
        by_camera=tuple(counted(changed, "camera")),
        examples=_examples(changed),
        bank=_bank_diff(Store(a), Store(b)),
    )


def _frames(table: pa.Table) -> set[str]:
    return set(table["frame"].drop_null().to_pylist())


def _largest_difference(joined: pa.Table) -> float:
    first, second = (joined[name].to_numpy() for name in ("confidence", "confidence_b"))
    return float(np.abs(first.astype(float) - second).max(initial=0.0))


def _examples(changed: pa.Table) -> tuple[Changed, ...]:
    rows = changed.sort_by([("confidence", "descending"), ("frame", "ascending")])
    return tuple(
        Changed(
            frame=row["frame"],
            camera=row["camera"],
            a=row["label"],
            b=row["label_b"],
            confidence_a=row["confidence"],
            confidence_b=row["confidence_b"],
        )
        for row in rows.slice(0, EXAMPLES).to_pylist()
    )


def _bank_diff(a: Store, b: Store) -> BankDiff:
    found_a, found_b = (checkpoint.newest_sound(store, lambda _, data: data) for store in (a, b))
    if found_a is None or found_b is None:
        return BankDiff(
            seq_a=found_a[0].seq if found_a else None,
            seq_b=found_b[0].seq if found_b else None,
            same=found_a is found_b,
        )
    (newest_a, data_a), (newest_b, data_b) = found_a, found_b
    entries: dict[str, int] = {}
    try:
        banks_a, banks_b = (
            banks_in(data, Settings(read_settings(store)))
            for store, data in ((a, data_a), (b, data_b))
        )
        same = banks_digest(banks_a) == banks_digest(banks_b)
        for scope in sorted({*banks_a.states, *banks_b.states}):
            first, second = banks_a.state(scope), banks_b.state(scope)
            if first.shape != second.shape:
                entries[scope] = max(first.shape[0], second.shape[0])
            elif count := len(differing_entries(first, second)):
                entries[scope] = count
    except (ValueError, KeyError):
        # Not of this output, which `verify` tells; the hashes still say whether they are the same.
        same = newest_a.parquet_sha256 == newest_b.parquet_sha256
    return BankDiff(seq_a=newest_a.seq, seq_b=newest_b.seq, same=same, entries=entries)
