"""Small label tables and outputs, as a run writes them, for tests of what reads them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mint_stream.output import schema
from mint_stream.store.store import Store

START = datetime(2025, 3, 20, 9, tzinfo=UTC)
CLASSES = ("car", "bus", "dog")


def frame_id(index: int, shard: str = "feed/a.tar") -> str:
    return f"{shard}#{index:06d}.png"


def labels_table(
    answers: Sequence[str],
    source: Sequence[str] | None = None,
    *,
    shard: str = "feed/a.tar",
    unit: str = "a-00000000",
    first: int = 0,
    preset: str = "paper",
    seconds_a_frame: float = 0.5,
) -> pa.Table:
    """One row for each answer; `source` are the frozen model's, by default the same."""
    source = list(answers if source is None else source)
    rng = np.random.default_rng(len(answers) + first)
    rows = [
        {
            "frame": frame_id(first + k, shard),
            "shard": shard,
            "member": f"{first + k:06d}.png",
            "camera": "cam-a",
            "timestamp": START + timedelta(minutes=first + k),
            "width": 96,
            "height": 96,
            "label": answer,
            "confidence": float(rng.uniform(0.4, 0.9)),
            "entropy": float(rng.uniform(0.2, 1.0)),
            "topk_labels": [answer],
            "topk_scores": [0.5],
            "source_label": source[k],
            "source_confidence": 0.5,
            "adapted": preset != "frozen",
            "guard": "off",
            "bank_scope": "shared",
            "bank_seq": 1,
            "unit": unit,
            "preset": preset,
            "model": "m" * 16,
            "classes": "c" * 16,
            "labelled_at": START + timedelta(seconds=seconds_a_frame * (first + k + 1)),
        }
        for k, answer in enumerate(answers)
    ]
    return pa.Table.from_pylist(rows, schema=schema.LABELS)


def truth_table(
    labels: Sequence[str], domains: Sequence[str], *, shard: str = "feed/a.tar"
) -> pa.Table:
    """What `read_truth` gives for frames 0, 1, ... of `shard`."""
    return pa.table(
        {
            "frame": [frame_id(k, shard) for k in range(len(labels))],
            "camera": ["cam-a"] * len(labels),
            "timestamp": pa.array([START] * len(labels), pa.timestamp("us", tz="UTC")),
            "domain": pa.array(list(domains), pa.string()),
            "label": pa.array(list(labels), pa.string()),
        }
    )


def put(output: str, name: str, table: pa.Table) -> None:
    """Write `table` as the Parquet object `name` of an output."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    Store(output).write(name, buffer.getvalue())
