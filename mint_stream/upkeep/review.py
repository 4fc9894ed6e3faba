"""Which frames a person should look at first."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Literal

import numpy as np
import pyarrow as pa

from mint_stream.output.read import would_be

Order = Literal["confidence", "disagreement", "random"]


def choose(
    labels: pa.Table,
    *,
    first: Order = "confidence",
    per_class: int | None = None,
    per_camera: int | None = None,
    limit: int | None = None,
) -> pa.Table:
    """The rows of `labels` to review, the most urgent first.

    Args:
        first: `confidence`, the lowest; or `disagreement`, the highest: frames whose answer is not
            the frozen model's, the surer both are the earlier, then the others by how far the two
            confidences are apart; or `random`, which has nothing to do with the answers and is the
            same each time: what is measured on these frames holds for all.
        per_class: most frames of each label (where there is none, of what it would be);
            per_camera: of each camera; limit: of all.
    """
    ordered = labels.take(_order(labels, first))
    kept: list[int] = []
    classes: Counter[str] = Counter()
    cameras: Counter[str | None] = Counter()
    columns = (would_be(ordered).to_pylist(), ordered["camera"].to_pylist())
    for at, (label, camera) in enumerate(zip(*columns, strict=True)):
        if limit is not None and len(kept) >= limit:
            break
        if per_class is not None and classes[label] >= per_class:
            continue
        if per_camera is not None and cameras[camera] >= per_camera:
            continue
        classes[label] += 1
        cameras[camera] += 1
        kept.append(at)
    return ordered.take(pa.array(kept, pa.int64()))


def _order(labels: pa.Table, first: Order) -> pa.Array:
    sure = labels["confidence"].to_numpy().astype(float)
    names = np.array(labels["frame"].to_pylist(), dtype=str)
    if first == "random":
        digests = [hashlib.sha256(str(name).encode()).digest() for name in names]
        return pa.array(sorted(range(len(names)), key=digests.__getitem__), pa.int64())
    if first == "confidence":
        return pa.array(np.lexsort((names, sure)))
    frozen = labels["source_confidence"].to_numpy().astype(float)
    answers = (would_be(labels), labels["source_label"])
    label, source = (np.array(column.to_pylist(), dtype=str) for column in answers)
    same = label == source
    urgency = np.where(same, np.abs(sure - frozen), np.minimum(sure, frozen))
    return pa.array(np.lexsort((names, -urgency, same)))
