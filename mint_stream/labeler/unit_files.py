"""The Parquet files of a labelled unit: a row for each frame, and one for each reject.

Rows are built as columns: what a frame costs is counted in microseconds.
"""

from __future__ import annotations

import datetime
import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mint_stream.input.records import to_row
from mint_stream.input.units import DecodedFrame, Rejected, Unit
from mint_stream.labeler.config import LabelerConfig
from mint_stream.method.prediction import Floats, Predictions
from mint_stream.output import schema


def label_table(
    unit: Unit,
    frames: Sequence[DecodedFrame],
    scopes: Sequence[str],
    predictions: Predictions,
    config: LabelerConfig,
    seq: int,
    now: datetime.datetime,
) -> pa.Table:
    """Rows as schema.LABELS of the labelled `frames` of a unit whose bank had seen `seq` merges."""
    p, count = predictions, len(frames)
    names = pa.array(p.labels, pa.string())
    label, calibrated = _answers(p, names, config)

    def same(value: object) -> pa.Array:
        return pa.array([value] * count)

    offsets = np.arange(count + 1) * p.topk_BK.shape[1]
    columns = {
        **{
            name: [getattr(frame, name) for frame in frames]
            for name in ("frame", "member", "camera", "timestamp", "width", "height")
        },
        "shard": same(unit.shard),
        "label": label,
        "confidence": p.scores_BK[:, 0],
        "calibrated": calibrated,
        "entropy": p.entropy_B,
        "topk_labels": pa.ListArray.from_arrays(offsets, names.take(pa.array(p.topk_BK.ravel()))),
        "topk_scores": pa.ListArray.from_arrays(offsets, pa.array(p.scores_BK.ravel())),
        "source_label": names.take(pa.array(p.source_B)),
        "source_confidence": p.source_score_B,
        "adapted": p.adapted_B,
        "adapted_label": names.take(pa.array(p.adapted_label_B, mask=p.adapted_label_B < 0)),
        "adapted_confidence": _or_null(p.adapted_score_B),
        "guard": p.guard_B.tolist(),
        "bank_domain": pa.array(p.domain_B, mask=p.domain_B < 0),
        "drift": _or_null(p.drift_B),
        "relabelled": same(config.relabels),
        "bank_scope": list(scopes),
        "bank_seq": same(seq),
        "unit": same(unit.unit),
        "preset": same(config.method.name),
        "model": same(config.model_hash),
        "classes": same(config.classes_hash),
        "labelled_at": same(now),
    }
    arrays = [_cast(columns[field.name], field.type) for field in schema.LABELS]
    return pa.Table.from_arrays(arrays, schema=schema.LABELS)


def labels_file(labels: pa.Table, rejects: int, log_name: str) -> bytes:
    """`labels/<unit>.parquet`: the rows, the number of rejects beside them, the unit's bank log."""
    facts = {"mint.frames": str(labels.num_rows + rejects), "mint.bank_log": log_name}
    return _parquet(labels.replace_schema_metadata({**(labels.schema.metadata or {}), **facts}))


def rejects_file(unit: Unit, rejects: Sequence[Rejected], now: datetime.datetime) -> bytes | None:
    """`rejects/<unit>.parquet`; None without any."""
    if not rejects:
        return None
    common = {"shard": unit.shard, "unit": unit.unit, "rejected_at": now}
    rows = [{**to_row(reject), **common} for reject in rejects]
    return _parquet(pa.Table.from_pylist(rows, schema=schema.REJECTS))


def _answers(p: Predictions, names: pa.Array, config: LabelerConfig) -> tuple[pa.Array, pa.Array]:
    """The columns `label` and `calibrated`."""
    abstention, best_B = config.abstention, p.topk_BK[:, 0]
    if abstention is None:
        return names.take(pa.array(best_B)), pa.nulls(len(p), pa.float32())
    scores_BK = p.scores_BK.astype(np.float64)
    calibrated_B = abstention.calibrated(scores_BK)
    confidence_B = scores_BK[:, 0] if calibrated_B is None else calibrated_B
    answers_B = abstention.answers(p.labels, best_B, confidence_B)
    calibrated = pa.nulls(len(p), pa.float32()) if calibrated_B is None else calibrated_B
    return names.take(pa.array(best_B, mask=~answers_B)), calibrated


def _or_null(values_B: Floats) -> pa.Array:
    return pa.array(values_B, mask=np.isnan(values_B))


def _cast(values: object, kind: pa.DataType) -> pa.Array:
    if isinstance(values, pa.Array):
        return values.cast(kind)
    if isinstance(values, np.ndarray):
        return pa.array(values).cast(kind, safe=False)
    return pa.array(values, kind)


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()
