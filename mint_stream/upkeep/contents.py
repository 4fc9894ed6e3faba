"""What is in an output, counted: `mint-stream inspect`."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mint_stream.bank import checkpoint
from mint_stream.bank.log import each
from mint_stream.config import MethodConfig
from mint_stream.input.grid import shard_of
from mint_stream.input.left_out import LeftOut
from mint_stream.output.generations import newest
from mint_stream.output.names import LEFT_OUT
from mint_stream.output.read import read_labels, read_rejects
from mint_stream.output.settings import read_settings
from mint_stream.output.suspects import suspect_units
from mint_stream.store.errors import StorageError
from mint_stream.store.store import Store
from mint_stream.upkeep.listing import Listing


@dataclass(frozen=True, kw_only=True)
class Count:
    """Labels of one class and camera."""

    label: str | None
    """None for frames without one."""
    camera: str | None
    frames: int


@dataclass(frozen=True, kw_only=True)
class RejectCount:
    """Rejects of one stage and kind of error."""

    stage: str
    error_type: str
    frames: int


@dataclass(frozen=True, kw_only=True)
class CheckpointFacts:
    """A bank checkpoint whose JSON is sound."""

    name: str
    number: int
    seq: int
    sha256: str
    scopes: tuple[str, ...]
    rolled_back_to: int | None


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What is in an output."""

    output: str
    objects: int
    size_bytes: int
    units: int
    shards: int
    labelled: int
    rejected: int
    adapted: int
    """Frames whose adapted answer stands."""
    unlabelled: int
    """Frames that carry no label, since none was sure enough."""
    changed: int
    """Frames whose answer is not the frozen model's."""
    suspect: int
    """Frames that the guard would not stand by, knowing what came next (`suspects`)."""
    relabelled: int
    """Frames that were labelled again."""
    labels: tuple[Count, ...]
    """Most frequent class first."""
    rejects: tuple[RejectCount, ...]
    left_out: str
    """Files of the input that the last run found to be of kinds that are not read; "" for none."""
    left_out_members: str
    """Members of tars that were read to their end, likewise."""
    log_objects: int
    generation: int | None
    """Of the compacted copy that counts; None where there is none."""
    compacted: int
    """Units that it holds."""
    record: bool
    """Whether files of its units may have been removed."""
    checkpoints: tuple[CheckpointFacts, ...]
    """Newest first."""
    settings: dict[str, Any]
    """`run.json`; empty where there is none."""
    first_labelled_at: str | None
    last_labelled_at: str | None

    @property
    def adapted_share(self) -> float:
        """Of the labels, in [0, 1]."""
        return self.adapted / self.labelled if self.labelled else 0.0

    @property
    def changed_share(self) -> float:
        """Of the labels, in [0, 1]."""
        return self.changed / self.labelled if self.labelled else 0.0

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        shares = {"adapted_share": self.adapted_share, "changed_share": self.changed_share}
        return {**dataclasses.asdict(self), **shares}


def describe(output: str) -> Contents:
    """Look through an output. Raises `StorageError` where it cannot be read or is none."""
    store = Store(output)
    listing = Listing.read(store)
    if not listing.objects:
        raise StorageError(f"{output} is empty: there is no output of mint_stream")
    try:
        settings = read_settings(store)
    except ValueError as error:
        raise StorageError(f"{store.uri('run.json')} cannot be read ({error})") from error
    labels, rejects = read_labels(output), read_rejects(output)
    generation = newest(store, listing.compact)
    stamps = pc.min_max(labels["labelled_at"])
    return Contents(
        output=output,
        objects=listing.objects,
        size_bytes=listing.size_bytes,
        units=len(listing.labels),
        shards=len({shard_of(unit) for unit in listing.labels}),
        labelled=labels.num_rows,
        rejected=rejects.num_rows,
        adapted=pc.sum(labels["adapted"]).as_py() or 0,
        unlabelled=labels["label"].null_count,
        changed=changed(labels).num_rows,
        suspect=_suspect(output, settings),
        relabelled=pc.sum(labels["relabelled"]).as_py() or 0,
        labels=tuple(
            Count(label=label, camera=camera, frames=frames)
            for label, camera, frames in counted(labels, "label", "camera")
        ),
        rejects=tuple(
            RejectCount(stage=stage, error_type=kind, frames=frames)
            for stage, kind, frames in counted(rejects, "stage", "error_type")
        ),
        left_out=str(_left_out(store, [LEFT_OUT] if LEFT_OUT in listing.single else [])),
        left_out_members=str(_left_out(store, listing.telling)),
        log_objects=len(listing.logs),
        generation=generation.number if generation else None,
        compacted=generation.units.rows if generation else 0,
        record=generation.record if generation else False,
        checkpoints=tuple(
            CheckpointFacts(
                name=about.name,
                number=about.number,
                seq=about.seq,
                sha256=about.parquet_sha256,
                scopes=tuple(about.decay),
                rolled_back_to=about.rolled_back_to,
            )
            for about in checkpoint.find(store).sound
        ),
        settings=settings,
        first_labelled_at=_text(stamps["min"]),
        last_labelled_at=_text(stamps["max"]),
    )


def _left_out(store: Store, names: list[str]) -> LeftOut:
    return LeftOut().update(map(LeftOut.from_json, each(store.read, names)))


def _suspect(output: str, settings: dict[str, Any]) -> int:
    if "preset" not in settings:
        return 0
    method = MethodConfig.from_dict(settings["preset"])
    return suspect_units(output, method.half_life).total() if method.guarded else 0


def changed(labels: pa.Table) -> pa.Table:
    """The rows whose answer is not the frozen model's."""
    return labels.filter(pc.not_equal(labels["label"], labels["source_label"]))


def counted(table: pa.Table, *columns: str) -> list[tuple[Any, ...]]:
    """The values of `columns` with their number, the most frequent first."""
    rows = zip(*(table[name].to_pylist() for name in columns), strict=True)
    counts = Counter(rows)
    return [(*values, n) for values, n in sorted(counts.items(), key=lambda c: (-c[1], str(c[0])))]


def _text(stamp: pa.Scalar) -> str | None:
    value = stamp.as_py()
    return value.isoformat() if value is not None else None
