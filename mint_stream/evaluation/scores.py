"""From the outputs of several presets to one table of frames, and from that to scores.

Accuracy counts frames whose truth is one of the classes. Frames of unknown classes (their truth is
another word) have no right answer: only the confidence of what they were labelled with counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mint_stream.config import ConfigError
from mint_stream.evaluation.costs import Costs
from mint_stream.evaluation.metrics import (
    Bin,
    Interval,
    block_length,
    calibration_error,
    histogram_distance,
    macro_accuracy,
    paired_difference,
    reliability,
    worst_stretch,
)
from mint_stream.output.accuracy import with_truth
from mint_stream.output.read import strings

OVERALL = "overall"


@dataclass(frozen=True, kw_only=True)
class Score:
    """What one preset reached on the frames of one group (of known class)."""

    preset: str
    kind: str
    """`domain`, `camera` or `overall`."""
    name: str
    frames: int
    accuracy: float
    macro: float
    """Mean over classes."""
    calibration_error: float
    histogram_distance: float
    adapted: float
    """Share of frames whose adapted answer stands."""
    difference: Interval
    """Of accuracy, to the frozen model's on the same frames."""
    worst: float
    """The same over the worst 500 consecutive frames of the group."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Several presets over one stream. The others are held against the first, the frozen one."""

    presets: tuple[str, ...]
    classes: tuple[str, ...]
    frames: pa.Table
    """A row for each preset and frame, in the order of the stream."""
    scores: tuple[Score, ...]
    bins: Mapping[str, list[Bin]]
    """The reliability of each preset."""
    unknown: Mapping[str, tuple[int, float]]
    """For each preset: frames of unknown classes, and the mean confidence of their labels."""
    answered: Mapping[str, float]
    """For each preset the share of its frames that carry a label."""
    costs: Mapping[str, Costs]
    block: int
    """Frames in a block of the bootstrap over all frames."""

    def score(self, preset: str, kind: str = OVERALL, name: str = OVERALL) -> Score:
        """The score of one group."""
        asked = (preset, kind, name)
        return next(s for s in self.scores if (s.preset, s.kind, s.name) == asked)

    def groups(self, kind: str) -> list[str]:
        """The names of the groups of a kind, in the order of the stream."""
        return list(dict.fromkeys(score.name for score in self.scores if score.kind == kind))


def study(
    labels: Mapping[str, pa.Table],
    truth: pa.Table,
    classes: Sequence[str],
    costs: Mapping[str, Costs],
) -> Study:
    """Hold the labels of each preset (as `read_labels` gives them) against the truth.

    truth: as `input.truth.read_truth`. Frames that not every preset has labelled are left
    out, also where it was not sure enough. Raises `ConfigError` if no frame of a known class is
    left.
    """
    answered = {p: pc.mean(pc.is_valid(t["label"]).cast(pa.float64())) for p, t in labels.items()}
    labels = {p: table.filter(pc.is_valid(table["label"])) for p, table in labels.items()}
    common = None
    for table in labels.values():
        ids = set(table["frame"].to_pylist())
        common = ids if common is None else common & ids
    wanted = pa.array(sorted(common or ()), pa.string())
    parts = {
        preset: _frames(preset, table.filter(pc.is_in(table["frame"], wanted)), truth, classes)
        for preset, table in labels.items()
    }
    presets = tuple(parts)
    known = {preset: part.filter(part["known"]) for preset, part in parts.items()}
    first = known[presets[0]]
    if not first.num_rows:
        raise ConfigError(
            "no frame has a truth that is in the class list: there is nothing to score"
        )
    scores = [
        _score(preset, kind, name, known[preset].filter(mask), first.filter(mask))
        for kind, name, mask in _groups(first)
        for preset in presets
    ]
    return Study(
        presets=presets,
        classes=tuple(classes),
        frames=pa.concat_tables(parts.values()),
        scores=tuple(scores),
        bins={p: reliability(_floats(t, "confidence"), _right(t)) for p, t in known.items()},
        unknown={preset: _unknown(part) for preset, part in parts.items()},
        answered={preset: share.as_py() or 0.0 for preset, share in answered.items()},
        costs=costs,
        block=block_length(strings(first, "truth")),
    )


def _frames(preset: str, labels: pa.Table, truth: pa.Table, classes: Sequence[str]) -> pa.Table:
    table = with_truth(labels, truth)
    return pa.table(
        {
            "preset": pa.array([preset] * table.num_rows, pa.string()),
            "position": pa.array(range(table.num_rows), pa.int64()),
            **{name: table[name] for name in ("frame", "camera", "timestamp", "domain", "truth")},
            "known": pc.is_in(table["truth"], pa.array(classes, pa.string())),
            **{name: table[name] for name in _ANSWER},
        }
    )


_ANSWER = (
    "label",
    "confidence",
    "entropy",
    "source_label",
    "source_confidence",
    "adapted",
    "guard",
    "bank_domain",
    "drift",
)


def _groups(first: pa.Table) -> list[tuple[str, str, pa.Array]]:
    found = []
    for kind in ("domain", "camera"):
        values = strings(first, kind)
        for name in dict.fromkeys(value for value in values if value is not None):
            found.append((kind, name, pa.array(values == name)))
    return [*found, (OVERALL, OVERALL, pa.array(np.ones(first.num_rows, bool)))]


def _score(preset: str, kind: str, name: str, own: pa.Table, first: pa.Table) -> Score:
    truth, right, other = strings(own, "truth"), _right(own), _right(first)
    return Score(
        preset=preset,
        kind=kind,
        name=name,
        frames=own.num_rows,
        accuracy=float(right.mean()),
        macro=macro_accuracy(truth, right),
        calibration_error=calibration_error(reliability(_floats(own, "confidence"), right)),
        histogram_distance=histogram_distance(strings(own, "label"), truth),
        adapted=pc.mean(own["adapted"].cast(pa.float64())).as_py(),
        difference=paired_difference(right, other, block_length(truth)),
        worst=worst_stretch(right, other),
    )


def _unknown(frames: pa.Table) -> tuple[int, float]:
    strangers = frames.filter(pc.and_(pc.invert(frames["known"]), pc.is_valid(frames["truth"])))
    return strangers.num_rows, pc.mean(strangers["confidence"]).as_py() or 0.0


def _right(table: pa.Table) -> np.ndarray:
    return np.asarray(strings(table, "label") == strings(table, "truth"), dtype=bool)


def _floats(table: pa.Table, column: str) -> np.ndarray:
    return np.asarray(table[column].to_numpy(), dtype=np.float64)
