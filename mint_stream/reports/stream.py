"""Several runs over one stream, laid on top of each other frame by frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mint_stream.output.accuracy import accuracy_by, with_truth
from mint_stream.output.read import strings
from mint_stream.reports.plots import Series, find_bands
from mint_stream.reports.text import FROZEN

_STYLES = 4
"""Colours for runs that adapt; style 0 is the frozen model's."""
NO_LABEL = "no label"
"""In place of one that is not sure enough."""
_TRUTH = ("frame", "domain", "label")


class Run(Protocol):
    """What a report needs of a run; see `mint_stream.reports.report.RunView`."""

    @property
    def name(self) -> str:
        """Unique among the runs of a report."""

    @property
    def labels(self) -> pa.Table:
        """As `schema.LABELS`."""

    @property
    def usage(self) -> pa.Table | None:
        """Columns scope, entry and usage, as `schema.BANK`."""

    @property
    def rejects(self) -> pa.Table | None:
        """As `schema.REJECTS`."""

    @property
    def facts(self) -> Mapping[str, str]:
        """For the table of the runs."""


@dataclass(frozen=True)
class Answers:
    """The answers of one model along the stream, at the frame numbers `positions`, growing."""

    name: str
    style: int
    positions: NDArray[np.int64]
    labels: NDArray[np.object_]
    source_labels: NDArray[np.object_]
    """The frozen model's, from the same run."""
    confidence: NDArray[np.float64]
    entropy: NDArray[np.float64] | None
    right: NDArray[np.float64]
    """1 right, 0 wrong, NaN where the truth is not known or there is no label."""

    @property
    def changed(self) -> NDArray[np.bool_]:
        """Where the answer is not the frozen model's."""
        other = np.asarray(self.labels != self.source_labels, dtype=bool)
        return np.asarray(other & (self.labels != NO_LABEL), dtype=bool)

    def series(self, values: NDArray[np.float64]) -> Series:
        """`values`, one for each answer, as a series of a plot."""
        return Series(self.name, self.style, self.positions, values)


class Stream:
    """The frames of all runs in the order of the run that has most, with every model's answers.

    `truth` has the columns frame, domain and label; None where nothing is known.
    """

    def __init__(self, runs: Sequence[Run], truth: pa.Table | None) -> None:
        self.runs = runs
        if truth is None:
            truth = pa.table({name: pa.array([], pa.string()) for name in _TRUTH})
        tables = {run.name: with_truth(run.labels, truth) for run in runs}
        self.table: pa.Table = max(tables.values(), key=lambda table: table.num_rows)
        self.truth = strings(self.table, "truth")
        self.domains = strings(self.table, "domain")
        self.bands = find_bands(self.domains.tolist())
        shown = [run.name for run in runs if _preset(run) != FROZEN] or [runs[0].name]
        self.accuracy = {name: accuracy_by(tables[name]) for name in shown}
        """For each run that adapts what `accuracy_by` gives (for the frozen one if it is alone)."""
        self.answers = self._all_answers(tables)
        """The frozen model's first."""

    @property
    def frames(self) -> int:
        """How many frames the stream has."""
        return int(self.table.num_rows)

    @property
    def knows_truth(self) -> bool:
        """Whether the truth of any frame is known."""
        return any(self.accuracy.values())

    @property
    def adapted(self) -> list[Answers]:
        """The answers of the runs that adapt."""
        return self.answers[1:]

    @property
    def primary(self) -> Answers:
        """The answers that samples are chosen by: the first adapted ones, else the frozen."""
        return self.answers[min(1, len(self.answers) - 1)]

    def moment(self, at: int) -> str:
        """The frame at `at` and when it was taken, in words."""
        taken = self.table["timestamp"][at].as_py()
        when = f" \N{MIDDLE DOT} {taken:%Y-%m-%d %H:%M}" if taken else ""
        return f"frame {at + 1:,}{when}"

    def placed(self, table: pa.Table) -> tuple[pa.Table, NDArray[np.int64]]:
        """The rows of a run in the order of the stream, and their places in it."""
        order = self.table["frame"].combine_chunks()
        at = pc.index_in(table["frame"].combine_chunks(), value_set=order)
        table = table.filter(pc.is_valid(at))
        positions = at.drop_null().to_numpy().astype(np.int64)
        by_position = np.argsort(positions, kind="stable")
        return table.take(by_position), positions[by_position]

    def _all_answers(self, tables: Mapping[str, pa.Table]) -> list[Answers]:
        frozen = next((run for run in self.runs if _preset(run) == FROZEN), None)
        if frozen is not None:
            answers = [self._answers(FROZEN, 0, tables[frozen.name], "label")]
        else:
            answers = [self._answers(FROZEN, 0, tables[self.runs[0].name], "source_label")]
        others = [run.name for run in self.runs if _preset(run) != FROZEN]
        for number, name in enumerate(others):
            answers.append(self._answers(name, 1 + number % _STYLES, tables[name], "label"))
        return answers

    def _answers(self, name: str, style: int, table: pa.Table, column: str) -> Answers:
        table, positions = self.placed(table)
        labels, truth = strings(table, column), strings(table, "truth")
        answered = np.array([value is not None for value in labels], dtype=bool)
        known = answered & np.array([value is not None for value in truth], dtype=bool)
        own = column == "label"
        return Answers(
            name=name,
            style=style,
            positions=positions,
            labels=np.where(answered, labels, NO_LABEL),
            source_labels=strings(table, "source_label"),
            confidence=_floats(table, "confidence" if own else "source_confidence"),
            entropy=_floats(table, "entropy") if own else None,
            right=np.where(known, (labels == truth).astype(np.float64), np.nan),
        )


def _preset(run: Run) -> str:
    return str(run.labels["preset"][0])


def _floats(table: pa.Table, column: str) -> NDArray[np.float64]:
    """NaN where the column is null."""
    return np.asarray(table[column].cast(pa.float64()).fill_null(np.nan).to_numpy())
