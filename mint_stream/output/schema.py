"""The Parquet files that a run writes: one schema for each, with a description of every field.

Descriptions travel inside the files as field metadata (`description`), the version as schema
metadata (`mint.schema_version`). A change of meaning raises the version; a new field does not.
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 1

SETTINGS = "run.json"
"""Settings of an output, written by the first run and never changed."""


def _schema(kind: str, *fields: tuple[str, pa.DataType, str]) -> pa.Schema:
    return pa.schema(
        [pa.field(name, type_, metadata={"description": text}) for name, type_, text in fields],
        metadata={"mint.kind": kind, "mint.schema_version": str(SCHEMA_VERSION)},
    )


_TIME = pa.timestamp("us", tz="UTC")

LABELS = _schema(
    "labels",
    ("frame", pa.string(), "frame id: <shard uri>#<member>, or the image's own uri"),
    ("shard", pa.string(), "uri of the shard"),
    ("member", pa.string(), "name of the image within its shard"),
    ("camera", pa.string(), "camera, where the input names one"),
    ("timestamp", _TIME, "when the frame was taken, where the input says so"),
    ("width", pa.int32(), "width of the stored image after EXIF rotation, pixels"),
    ("height", pa.int32(), "height of the stored image after EXIF rotation, pixels"),
    ("label", pa.string(), "the answer that stands; null where it is not sure enough"),
    ("confidence", pa.float32(), "probability of the most probable label, in [0, 1]"),
    ("calibrated", pa.float32(), "the same, calibrated; null without a calibration"),
    ("entropy", pa.float32(), "entropy of the predicted distribution, nats"),
    ("topk_labels", pa.list_(pa.string()), "the most probable labels, best first"),
    ("topk_scores", pa.list_(pa.float32()), "their probabilities"),
    ("source_label", pa.string(), "the frozen model's answer"),
    ("source_confidence", pa.float32(), "probability of `source_label` under the frozen model"),
    ("adapted", pa.bool_(), "whether the adapted answer stands (else the frozen one)"),
    ("adapted_label", pa.string(), "the adapted answer, whether or not it stands; null without"),
    ("adapted_confidence", pa.float32(), "probability of `adapted_label`, where there is one"),
    (
        "guard",
        pa.string(),
        "adapting, or why the frozen answer stands; off without a guard; budget: no time to adapt",
    ),
    (
        "bank_domain",
        pa.int32(),
        "the bank's entry for the domain that the frame belongs to; null without domains",
    ),
    (
        "drift",
        pa.float32(),
        "how far the camera's frames in this unit lie from the domain that the bank began with, in "
        "spreads of one domain; null without domains",
    ),
    ("relabelled", pa.bool_(), "whether this row stands in place of one that was suspect"),
    ("bank_scope", pa.string(), "which bank: `shared`, or the camera"),
    ("bank_seq", pa.int64(), "merges that the bank had seen before this frame's unit"),
    ("unit", pa.string(), "id of the unit"),
    ("preset", pa.string(), "name of the preset"),
    ("model", pa.string(), "hash of the model: configuration and weights"),
    ("classes", pa.string(), "hash of the class list"),
    ("labelled_at", _TIME, "when the label was made"),
)

LATER = frozenset(
    {"adapted_label", "adapted_confidence", "bank_domain", "calibrated", "drift", "relabelled"}
)
"""Fields of labels that older files lack; they are read as null."""

REJECTS = _schema(
    "rejects",
    ("frame", pa.string(), "frame id; null where the shard as a whole could not be read"),
    ("shard", pa.string(), "uri of the shard"),
    ("member", pa.string(), "name of the image within its shard; null for the whole shard"),
    ("stage", pa.string(), "where it failed: list, read, decode or label"),
    ("error_type", pa.string(), "class of the error"),
    ("message", pa.string(), "what was wrong, for a person"),
    ("size_bytes", pa.int64(), "size of the member or the shard, where known"),
    ("unit", pa.string(), "id of the unit"),
    ("rejected_at", _TIME, "when it was rejected"),
)

BANK = _schema(
    "bank",
    ("scope", pa.string(), "which bank: `shared`, or the camera"),
    ("entry", pa.int32(), "index k of the entry"),
    ("key", pa.list_(pa.float32()), "stored key row, D values; effective key = decay * stored"),
    ("prompt", pa.list_(pa.float32()), "stored prompt rows, P * D values, row by row"),
    ("usage", pa.int64(), "how often the entry was retrieved while adapting"),
    ("last_seq", pa.int64(), "last merge that changed the entry"),
)

BANK_LOG = _schema(
    "bank_log",
    ("scope", pa.string(), "which bank: `shared`, or the camera"),
    ("entry", pa.int32(), "index k of the entry"),
    ("key", pa.list_(pa.float32()), "what the unit added to the effective key, D values"),
    ("prompt", pa.list_(pa.float32()), "what the unit added to the effective prompt, P * D values"),
    ("usage", pa.int64(), "how often the unit retrieved the entry while adapting"),
)

POSITION = pa.field(
    "position",
    pa.int32(),
    metadata={"description": "place of the row among those of its unit; in compacted files"},
)
"""Compacted files have it behind the fields of their rows."""
