"""Labels held against a known truth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mint_stream.output.read import strings


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


def with_truth(labels: pa.Table, truth: pa.Table) -> pa.Table:
    """`labels` with the columns `domain` and `truth` (what is really there) from `truth`.

    `truth` has the columns frame, domain and label (`input.truth.read_truth`). Rows keep
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
