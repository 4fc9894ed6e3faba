"""What a report's page says: texts, tables, plots and samples, ready for the template."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

import mint_stream
from mint_stream.output.accuracy import Row, sign_test
from mint_stream.reports.days import CameraDay, RejectKind, camera_days, reject_kinds
from mint_stream.reports.drift import Drift, drift_of
from mint_stream.reports.plots import Chart, UsageGrid, label_chart, rolling_chart, usage_grid
from mint_stream.reports.samples import Group, groups_by_segment, groups_without_truth, thumbnails
from mint_stream.reports.stream import Run, Stream
from mint_stream.reports.text import percent, points

_MOST_SCOPES = 6
_CHANCE = 0.05


@dataclass(frozen=True)
class Tile:
    """A number to be seen first."""

    name: str
    value: str
    note: str
    tone: str = ""


@dataclass(frozen=True)
class AccuracyCell:
    """What one run reached in one segment; `at` is its accuracy in percent, None if it has none."""

    accuracy: str
    gain: str
    tone: str
    fixed: int
    broken: int
    at: float | None


@dataclass(frozen=True)
class AccuracyRow:
    """One line of the table of accuracy."""

    name: str
    frames: int
    source: str
    source_at: float
    cells: tuple[AccuracyCell, ...]
    overall: bool


@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything that the template shows."""

    title: str
    lead: str
    tiles: tuple[Tile, ...]
    columns: tuple[str, ...]
    rows: tuple[AccuracyRow, ...]
    charts: tuple[Chart, ...]
    drift: Drift | None
    days: tuple[CameraDay, ...]
    """Where no truth is known."""
    rejects: tuple[RejectKind, ...]
    """Of the first run."""
    first: str
    last: str
    strip: Mapping[str, str]
    """A picture for each segment, by its name."""
    groups: tuple[Group, ...]
    samples_note: str
    grids: tuple[tuple[str, UsageGrid], ...]
    run_names: tuple[str, ...]
    facts: tuple[tuple[str, tuple[str, ...]], ...]
    version: str


def build_page(
    runs: Sequence[Run],
    *,
    truth: pa.Table | None,
    pictures: Callable[[pa.Table], Mapping[str, bytes]],
    title: str | None,
) -> Page:
    """The page for `runs`, each with at least one label. See `report.write_report`."""
    stream = Stream(runs, truth)
    if stream.knows_truth:
        groups, note = groups_by_segment(stream)
    else:
        groups, note = groups_without_truth(stream)
    # A frame of each segment to stand over the plots, from where its condition has set in.
    faces = {b.name: int(b.start + 0.6 * (b.stop - b.start)) for b in stream.bands}
    wanted = sorted({*faces.values(), *(card.position for g in groups for card in g.cards)})
    rows = stream.table.take(pa.array(wanted, pa.int64()))
    uris = thumbnails(pictures(rows), rows["frame"].to_pylist())
    frames = stream.table["frame"]
    strip = {name: uris.get(frames[at].as_py()) for name, at in faces.items()}
    return Page(
        title=title or "Labels along a stream",
        lead=_lead(stream),
        tiles=tuple(_tiles(stream)),
        columns=tuple(answers.name for answers in stream.adapted),
        rows=tuple(_accuracy_rows(stream)),
        charts=tuple(_charts(stream)),
        drift=drift_of(stream),
        days=() if stream.knows_truth else camera_days(stream.table),
        rejects=() if runs[0].rejects is None else reject_kinds(runs[0].rejects),
        first=stream.moment(0),
        last=stream.moment(stream.frames - 1),
        strip={name: uri for name, uri in strip.items() if uri},
        groups=tuple(group.with_pictures(uris) for group in groups),
        samples_note=note,
        grids=tuple(_grids(runs)),
        run_names=tuple(run.name for run in runs),
        facts=tuple(_facts(runs)),
        version=mint_stream.__version__,
    )


def _lead(stream: Stream) -> str:
    said = [f"{_count(stream.frames, 'frame')}{_from(stream)}."]
    if not stream.knows_truth:
        said.append("What is really there is not known, so this shows how sure the labels are.")
        for answers in stream.adapted:
            share = percent(float(answers.changed.mean()))
            said.append(f"Adapting ({answers.name}) changed the frozen model's answer in {share}.")
        return " ".join(said)
    rows = next(iter(stream.accuracy.values()))
    overall, segments = rows[-1], rows[:-1]
    said.append(f"Frozen CLIP labels {percent(overall.source_accuracy)} of them right")
    if len(segments) > 1:
        best = max(segments, key=lambda row: row.source_accuracy)
        worst = min(segments, key=lambda row: row.source_accuracy)
        said[-1] += (
            f", from {percent(best.source_accuracy)} ({best.name}) "
            f"down to {percent(worst.source_accuracy)} ({worst.name})"
        )
    said[-1] += "."
    for answers in stream.adapted:
        row = stream.accuracy[answers.name][-1]
        seen = f" of {row.frames:,} frames" if row.frames < overall.frames else ""
        said.append(
            f"Adapting ({answers.name}) labels {percent(row.accuracy)}{seen} right: "
            f"{_verdict(row)}."
        )
    return " ".join(said)


def _verdict(row: Row) -> str:
    """The difference to the frozen model, and whether it can be told from chance."""
    if row.fixed == row.broken == 0:
        return "it changed no answer's rightness"
    chance = sign_test(row.fixed, row.broken)
    said = (
        f"{_signed(row)} points. It fixed {_count(row.fixed, 'frame')} and broke {row.broken:,}, "
    )
    if chance < _CHANCE:
        value = "< 0.001" if chance < 0.001 else f"= {chance:.3f}"
        return said + f"more one-sided than chance would have it (sign test, p {value})"
    return said + f"which chance alone could explain (sign test, p = {chance:.2f})"


def _tiles(stream: Stream) -> list[Tile]:
    tiles = [Tile("frames", f"{stream.frames:,}", _from(stream).removeprefix(" from ").strip())]
    if not stream.knows_truth:
        for answers in stream.answers:
            sure = percent(float(np.nanmean(answers.confidence)))
            tiles.append(Tile(f"confidence, {answers.name}", sure, "mean"))
        for answers in stream.adapted:
            share = percent(float(answers.changed.mean()))
            tiles.append(Tile(f"changed by {answers.name}", share, "of the frozen answers"))
        return tiles
    overall = next(iter(stream.accuracy.values()))[-1]
    tiles.append(Tile("frozen CLIP", percent(overall.source_accuracy), "right"))
    for answers in stream.adapted:
        row = stream.accuracy[answers.name][-1]
        note = f"{_signed(row)} points"
        note += f", {row.frames:,} frames" if row.frames < overall.frames else ""
        tiles.append(Tile(f"adapting, {answers.name}", percent(row.accuracy), note, _tone(row)))
    return tiles


def _accuracy_rows(stream: Stream) -> list[AccuracyRow]:
    tables = stream.accuracy
    found = []
    for row in next(iter(tables.values())):
        cells = []
        for answers in stream.adapted:
            same = [
                r for r in tables[answers.name] if (r.name, r.overall) == (row.name, row.overall)
            ]
            cells.append(_cell(same[0]) if same else AccuracyCell("-", "-", "", 0, 0, None))
        source = row.source_accuracy
        found.append(
            AccuracyRow(
                row.name, row.frames, percent(source), 100 * source, tuple(cells), row.overall
            )
        )
    return found


def _cell(row: Row) -> AccuracyCell:
    at = round(100 * row.accuracy, 2)
    return AccuracyCell(percent(row.accuracy), _signed(row), _tone(row), row.fixed, row.broken, at)


def _charts(stream: Stream) -> list[Chart]:
    rolling = functools.partial(rolling_chart, frames=stream.frames, bands=stream.bands)
    charts = []
    if stream.knows_truth:
        series = [answers.series(answers.right) for answers in stream.answers]
        charts.append(rolling("Accuracy", series))
    else:
        charts.append(label_chart(stream.primary.labels.tolist()))
        if stream.adapted:
            changed = [a.series(a.changed.astype(np.float64)) for a in stream.adapted]
            charts.append(rolling("Answers changed by adapting", changed))
    sure = [answers.series(answers.confidence) for answers in stream.answers]
    charts.append(rolling("Confidence", sure))
    unsure = [a.series(a.entropy) for a in stream.answers if a.entropy is not None]
    highest = max((float(np.nanmax(s.values)) for s in unsure if len(s.values)), default=1.0)
    top = max(0.5, math.ceil(2 * highest) / 2)
    charts.append(rolling("Entropy, nats", unsure, top=top, percent=False))
    return charts


def _grids(runs: Sequence[Run]) -> list[tuple[str, UsageGrid]]:
    found = []
    for run in runs:
        if run.usage is None:
            continue
        rows = run.usage.to_pylist()
        for scope in list(dict.fromkeys(row["scope"] for row in rows))[:_MOST_SCOPES]:
            usage = {row["entry"]: row["usage"] for row in rows if row["scope"] == scope}
            found.append((f"{run.name}, {scope} bank", usage_grid(scope, usage)))
    return found


def _facts(runs: Sequence[Run]) -> list[tuple[str, tuple[str, ...]]]:
    names = dict.fromkeys(name for run in runs for name in run.facts)
    return [(name, tuple(run.facts.get(name, "-") for run in runs)) for name in names]


def _from(stream: Stream) -> str:
    """Where the frames come from, in words."""
    cameras = stream.table["camera"].drop_null().unique()
    segments = {domain for domain in stream.domains if domain is not None}
    parts = [_count(len(cameras), "camera")] if len(cameras) else []
    parts += [_count(len(segments), "segment")] if segments else []
    return f" from {', '.join(parts)}" if parts else ""


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _signed(row: Row) -> str:
    text = points(row.accuracy - row.source_accuracy)
    return text.replace("-", "\N{MINUS SIGN}").replace("+0.0", "\N{PLUS-MINUS SIGN}0.0")


def _tone(row: Row) -> str:
    gain = round(row.accuracy - row.source_accuracy, 3)
    return "better" if gain > 0 else "worse" if gain < 0 else ""
