"""What each camera showed on each day, and what was rejected and why: two tables of the report."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mint_stream.reports.text import percent

_MOST_LABELS = 4
_MOST_ROWS = 200
"""Camera days, the last ones; and kinds of rejects."""


@dataclass(frozen=True, kw_only=True)
class CameraDay:
    """One camera on one day (UTC)."""

    camera: str
    day: str
    frames: int
    labels: str
    """The labels given most often, with their counts."""
    confidence: str
    adapted: str
    drift: str
    guard: str
    """What the guard said most often; empty where none watches."""


@dataclass(frozen=True, kw_only=True)
class RejectKind:
    """Frames that were rejected at one stage for one kind of error."""

    stage: str
    error: str
    count: int
    example: str
    """The message of the first one, and its frame."""


def camera_days(labels: pa.Table) -> tuple[CameraDay, ...]:
    """A row for each camera and day, by day and then by name; the last `_MOST_ROWS` of them.

    labels: as `schema.LABELS`. Frames without a camera or a time stand together under "-".
    """
    days = pc.strftime(labels["timestamp"], format="%Y-%m-%d").to_pylist()
    places: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, (day, camera) in enumerate(zip(days, labels["camera"].to_pylist(), strict=True)):
        places[day or "-", camera or "-"].append(index)
    if set(places) == {("-", "-")}:
        return ()
    shown = sorted(places)[-_MOST_ROWS:]
    return tuple(
        _camera_day(camera, day, labels.take(places[day, camera])) for day, camera in shown
    )


def reject_kinds(rejects: pa.Table) -> tuple[RejectKind, ...]:
    """A row for each stage and kind of error, the most frequent first. rejects: `schema.REJECTS`"""
    found: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for row in rejects.select(["stage", "error_type", "message", "frame", "shard"]).to_pylist():
        found[row["stage"], row["error_type"]].append(row)
    kinds = [
        RejectKind(
            stage=stage,
            error=error,
            count=len(rows),
            example=f"{rows[0]['frame'] or rows[0]['shard']}: {rows[0]['message']}",
        )
        for (stage, error), rows in found.items()
    ]
    return tuple(sorted(kinds, key=lambda kind: -kind.count)[:_MOST_ROWS])


def _camera_day(camera: str, day: str, rows: pa.Table) -> CameraDay:
    labels = Counter(label or "no label" for label in rows["label"].to_pylist())
    verdicts = rows["guard"].to_pylist()
    guards = Counter(verdict for verdict in verdicts if verdict not in (None, "off"))
    drift = pc.mean(rows["drift"]).as_py()
    more = f", {len(labels) - _MOST_LABELS} more" if len(labels) > _MOST_LABELS else ""
    most = ", ".join(f"{label} {count:,}" for label, count in labels.most_common(_MOST_LABELS))
    return CameraDay(
        camera=camera,
        day=day,
        frames=rows.num_rows,
        labels=most + more,
        confidence=percent(pc.mean(rows["confidence"]).as_py() or 0.0),
        adapted=percent(pc.mean(rows["adapted"].cast(pa.float32())).as_py() or 0.0),
        drift="-" if drift is None else f"{drift:.2f}",
        guard=guards.most_common(1)[0][0] if guards else "",
    )
