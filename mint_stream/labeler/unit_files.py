"""The Parquet files of a labelled unit: a row for each frame, and one for each reject."""

from __future__ import annotations

import datetime
import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mint_stream.labeler.config import LabelerConfig
from mint_stream.method.prediction import Prediction
from mint_stream.output import schema

Labelled = list[tuple[dict[str, Any], str, Prediction]]
"""Frames (rows.FRAME) with the scope of their bank and their prediction."""

_FRAME_FIELDS = ("frame", "member", "camera", "timestamp", "width", "height")


def label_rows(
    unit: dict[str, Any],
    labelled: Labelled,
    config: LabelerConfig,
    seq: int,
    now: datetime.datetime,
) -> list[dict[str, Any]]:
    """Rows as schema.LABELS of a rows.UNIT_ROW whose bank had seen `seq` merges."""
    return [
        {
            **{name: frame[name] for name in _FRAME_FIELDS},
            "shard": unit["shard"],
            **_answer(prediction, config),
            "confidence": prediction.confidence,
            "entropy": prediction.entropy,
            "topk_labels": [label for label, _ in prediction.topk],
            "topk_scores": [score for _, score in prediction.topk],
            "source_label": prediction.source_label,
            "source_confidence": prediction.source_confidence,
            "adapted": prediction.adapted,
            "adapted_label": prediction.adapted_label,
            "adapted_confidence": prediction.adapted_confidence,
            "guard": prediction.guard,
            "bank_domain": prediction.bank_domain,
            "drift": prediction.drift,
            "relabelled": config.relabels,
            "bank_scope": scope,
            "bank_seq": seq,
            "unit": unit["unit"],
            "preset": config.method.name,
            "model": config.model_hash,
            "classes": config.classes_hash,
            "labelled_at": now,
        }
        for frame, scope, prediction in labelled
    ]


def labels_file(labels: list[dict[str, Any]], rejects: int, log_name: str) -> bytes:
    """`labels/<unit>.parquet`: the rows, the number of rejects beside them, the unit's bank log."""
    facts = {"mint.frames": str(len(labels) + rejects), "mint.bank_log": log_name}
    return _parquet(labels, schema.LABELS, facts)


def rejects_file(
    unit: dict[str, Any], rejects: list[dict[str, Any]], now: datetime.datetime
) -> bytes | None:
    """`rejects/<unit>.parquet` of rows.REJECT values; None without any."""
    if not rejects:
        return None
    common = {"shard": unit["shard"], "unit": unit["unit"], "rejected_at": now}
    return _parquet([{**reject, **common} for reject in rejects], schema.REJECTS, {})


def _answer(prediction: Prediction, config: LabelerConfig) -> dict[str, Any]:
    """The columns `label` and `calibrated`."""
    abstention = config.abstention
    if abstention is None:
        return {"label": prediction.label}
    calibrated = abstention.calibrated([score for _, score in prediction.topk])
    confidence = prediction.confidence if calibrated is None else calibrated
    answers = abstention.answers(prediction.label, confidence)
    return {"label": prediction.label if answers else None, "calibrated": calibrated}


def _parquet(values: list[dict[str, Any]], kind: pa.Schema, facts: dict[str, str]) -> bytes:
    with_facts = kind.with_metadata({**(kind.metadata or {}), **facts})
    table = pa.Table.from_pylist(values, schema=with_facts)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()
