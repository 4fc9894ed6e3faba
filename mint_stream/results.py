"""Reading a run's outputs back as Arrow tables, and holding them against a known truth.

Where the input says what is really there (`mint_stream.shards.read_truth`):

    labels = read_labels("s3://bucket/out")
    for row in accuracy_by(with_truth(labels, truth)):
        print(row.name, row.frames, row.source_accuracy, row.accuracy)
"""

from __future__ import annotations

import io
import logging
import math
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mint_stream import schema
from mint_stream.compacted import CompactedError, Generation, newest, read_file
from mint_stream.storage import ObjectMissing, StorageError, Store

log = logging.getLogger(__name__)

_READERS = 16
"""Objects that are fetched at the same time: reading small objects waits on latency alone."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Accuracy on the frames of one segment whose truth is known. Shares are in [0, 1]."""

    name: str
    frames: int
    source_accuracy: float
    """Share that the frozen model's answer gets right."""
    accuracy: float
    """Share that the answer that stands gets right."""
    fixed: int
    """Frames that the frozen model gets wrong and the answer that stands right."""
    broken: int
    """Frames that the frozen model gets right and the answer that stands wrong."""
    confidence: float
    """Mean probability of the answer that stands."""
    adapted_share: float
    """Share of frames whose adapted answer stands."""
    overall: bool = False
    """Whether this row is over all segments."""


def read_labels(output: str, *, relabelled: bool = True) -> pa.Table:
    """Every committed label of the run that wrote to `output` (a folder or any fsspec URL).

    With `relabelled`, rows that were labelled again stand in place of those they were made for.

    Columns as in `schema.LABELS`; rows by shard in natural order (2 before 10), within a shard in
    the order of its frames. An output without labels gives an empty table. Raises `StorageError`
    for an address that cannot be read, or a file that is not Parquet, naming it.
    """
    labels = _read(output, "labels", schema.LABELS)
    return _with_relabelled(labels, Store(output)) if relabelled else labels


def read_rejects(output: str) -> pa.Table:
    """Every frame or shard that could not be labelled, as `schema.REJECTS`; else `read_labels`."""
    return _read(output, "rejects", schema.REJECTS)


def read_bank_usage(output: str) -> pa.Table:
    """How often each bank entry was retrieved, from the newest checkpoint of `output`.

    Columns scope, entry and usage as in `schema.BANK`; empty where there is no checkpoint.
    """
    fields = ["scope", "entry", "usage"]
    store = Store(output)
    names = [info.name for info in store.list("bank/checkpoints/")]
    # The JSON is written after its Parquet: without it the checkpoint is not whole.
    whole = [n for n in names if n.endswith(".parquet") and _beside(n, ".json") in names]
    if not whole:
        return schema.BANK.empty_table().select(fields)
    newest = max(whole)
    return _parquet(store, newest, fields)


def with_truth(labels: pa.Table, truth: pa.Table) -> pa.Table:
    """`labels` with the columns `domain` and `truth` (what is really there) from `truth`.

    `truth` has the columns frame, domain and label (`mint_stream.shards.read_truth`). Rows keep
    their order; a frame that `truth` does not know gets nulls.
    """
    at = pc.index_in(labels["frame"].combine_chunks(), value_set=truth["frame"].combine_chunks())
    for name, source in (("domain", "domain"), ("truth", "label")):
        if name in labels.column_names:
            labels = labels.drop_columns([name])
        labels = labels.append_column(name, truth[source].combine_chunks().take(at))
    return labels


def accuracy_by(labels: pa.Table, column: str = "domain") -> list[Row]:
    """Accuracy for each value of `column`, in the order of first appearance, and over all.

    `labels` comes from `with_truth`; rows without a truth or without a label are left out, those
    without a value of `column` count in the last row only, which is over all (`overall` is true).
    No row at all without a truth.
    """
    known = labels.filter(pc.and_(pc.is_valid(labels["truth"]), pc.is_valid(labels["label"])))
    if not known.num_rows:
        return []
    groups = strings(known, column)
    names = dict.fromkeys(name for name in groups if name is not None)
    rows = [_row(known.filter(pa.array(groups == name)), name) for name in names]
    return [*rows, _row(known, "overall", overall=True)]


def sign_test(fixed: int, broken: int) -> float:
    """Probability of a split at least as one-sided as this if chance decided each changed frame.

    The exact two-sided sign test (McNemar's); from 1000 changed frames on by its normal limit.
    """
    changed, fewer = fixed + broken, min(fixed, broken)
    if changed == 0:
        return 1.0
    if changed >= 1000:
        distance = max(0.0, changed / 2 - fewer - 0.5) / math.sqrt(changed / 4)
        return math.erfc(distance / math.sqrt(2))
    tail = sum(math.comb(changed, k) for k in range(fewer + 1))
    chance: float = 2 * tail / 2**changed
    return min(1.0, chance)


def would_be(labels: pa.Table) -> pa.Array:
    """The labels, and where a frame has none the most probable one."""
    return pc.coalesce(labels["label"], pc.list_element(labels["topk_labels"], 0)).combine_chunks()


def strings(table: pa.Table, column: str) -> np.ndarray:
    """A string column as an object array with None for null."""
    return np.array(table[column].to_pylist(), dtype=object)


def labelling_rate(labels: pa.Table) -> float:
    """Frames labelled a second, the median over units; 0 where fewer than two units tell.

    Taken from `labelled_at`, so that pauses between runs do not count.
    """
    stamped = labels.filter(pc.is_valid(labels["labelled_at"]))
    units = stamped.group_by("unit").aggregate([("labelled_at", "max"), ("frame", "count")])
    units = units.sort_by("labelled_at_max")
    ends_us = units["labelled_at_max"].cast(pa.int64()).to_numpy()
    spans_s = np.diff(ends_us) / 1e6
    frames = units["frame_count"].to_numpy()[1:]
    rates = frames[spans_s > 0] / spans_s[spans_s > 0]
    return float(np.median(rates)) if len(rates) else 0.0


def _row(known: pa.Table, name: str, overall: bool = False) -> Row:
    truth, label, source = (strings(known, c) for c in ("truth", "label", "source_label"))
    right, source_right = label == truth, source == truth
    return Row(
        name=name,
        frames=known.num_rows,
        source_accuracy=float(source_right.mean()),
        accuracy=float(right.mean()),
        fixed=int((right & ~source_right).sum()),
        broken=int((source_right & ~right).sum()),
        confidence=pc.mean(known["confidence"]).as_py() or 0.0,
        adapted_share=pc.mean(known["adapted"].cast(pa.float32())).as_py() or 0.0,
        overall=overall,
    )


def _read(output: str, folder: Literal["labels", "rejects"], wanted: pa.Schema) -> pa.Table:
    store = Store(output)
    while True:
        # First the list: unit files that are not in it any more are in the generation.
        names = [i.name for i in store.list(f"{folder}/") if i.name.endswith(".parquet")]
        generation = _newest(store)
        try:
            table = _read_once(store, folder, wanted, names, generation)
        except ObjectMissing:
            if _newest(store) == generation:
                raise
            # Compacted since, and what was being read is no longer kept.
            continue
        return table.replace_schema_metadata(wanted.metadata)


def _with_relabelled(labels: pa.Table, store: Store) -> pa.Table:
    """The rows in `relabelled/` in the places of those of the same frames."""
    names = [info.name for info in store.list("relabelled/") if info.name.endswith(".parquet")]
    if not names:
        return labels
    with ThreadPoolExecutor(_READERS) as readers:
        tables = list(readers.map(lambda name: _parquet(store, name), names))
    again = pa.concat_tables(tables, promote_options="default").select(labels.column_names)
    at = pc.index_in(labels["frame"].combine_chunks(), value_set=again["frame"].combine_chunks())
    rows = pa.array(np.arange(labels.num_rows))
    take = pc.if_else(pc.is_valid(at), pc.add(at.cast(pa.int64()), labels.num_rows), rows)
    both = pa.concat_tables([labels, again.cast(labels.schema)])
    return both.take(take).replace_schema_metadata(labels.schema.metadata)


def _newest(store: Store) -> Generation | None:
    try:
        return newest(store)
    except CompactedError as error:
        log.warning("%s; reading the unit files instead", error)
        return None


def _read_once(
    store: Store,
    folder: Literal["labels", "rejects"],
    wanted: pa.Schema,
    names: list[str],
    generation: Generation | None,
) -> pa.Table:
    """The rows of a generation, and those of the units in `names` that it does not hold."""
    compacted: list[pa.Table] = []
    held: set[str] = set()
    if generation is not None:
        try:
            files = getattr(generation, folder)
            with ThreadPoolExecutor(_READERS) as readers:
                data = list(readers.map(lambda file: read_file(store, generation, file), files))
            compacted = [pq.read_table(io.BytesIO(content)) for content in data]
            index = pq.read_table(io.BytesIO(read_file(store, generation, generation.units)))
            held = set(index["unit"].to_pylist())
        except CompactedError as error:
            log.warning("%s; reading the unit files instead", error)
            compacted, held = [], set()
    names = [name for name in names if PurePosixPath(name).stem not in held]
    with ThreadPoolExecutor(_READERS) as readers:
        tables = list(readers.map(lambda name: _parquet(store, name), names))
    parts = [_placed(table) for table in (wanted.empty_table(), *tables)] + compacted
    table = pa.concat_tables(parts, promote_options="default")
    return _in_order(table).drop_columns(["position"])


def _placed(table: pa.Table) -> pa.Table:
    """With the place of each row in its unit, as compacted files have it."""
    return table.append_column("position", pa.array(range(table.num_rows), pa.int32()))


def _in_order(table: pa.Table) -> pa.Table:
    """Rows by shard in natural order, unit, and place in the unit."""
    shards = sorted(table["shard"].unique().to_pylist(), key=lambda shard: _natural(shard or ""))
    rank = pc.index_in(table["shard"], value_set=pa.array(shards, pa.string()))
    order = [(name, "ascending") for name in ("rank", "unit", "position")]
    return table.take(pc.sort_indices(table.append_column("rank", rank), sort_keys=order))


def _natural(shard: str) -> list[str | int]:
    # Digits count as numbers, as where shards are discovered: shard-2 before shard-10.
    pieces = re.split(r"([0-9]+)", shard)
    return [int(piece) if n % 2 else piece for n, piece in enumerate(pieces)]


def _parquet(store: Store, name: str, columns: list[str] | None = None) -> pa.Table:
    try:
        return pq.read_table(io.BytesIO(store.read(name)), columns=columns)
    except pa.ArrowInvalid as error:
        raise StorageError(
            f"{store.uri(name)} is not a readable Parquet file ({error}); it was damaged after it "
            "was written: delete it and run again, its unit is then labelled anew"
        ) from error


def _beside(name: str, suffix: str) -> str:
    return str(PurePosixPath(name).with_suffix(suffix))
