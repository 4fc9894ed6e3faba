"""A study as one self-contained HTML page: the report of its runs, and what only truth can tell."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mint_stream.evaluation.metrics import Bin
from mint_stream.evaluation.scores import Study
from mint_stream.evaluation.table import interval, note, overall_rows
from mint_stream.input.pictures import read_pictures
from mint_stream.reports.page import build_page
from mint_stream.reports.plots import Chart, Line, Tick
from mint_stream.reports.report import RunView, fill_template
from mint_stream.reports.text import percent

_GROUPS = {"domain": "segment", "camera": "camera"}


@dataclass(frozen=True)
class Row:
    """A line of a table: its name, and a text for each preset."""

    name: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Share:
    """How often a class is among the truth and among each preset's labels, percent of the most."""

    name: str
    truth: str
    truth_at: float
    cells: tuple[str, ...]
    at: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Extra:
    """What the page shows besides what a report of runs shows."""

    presets: tuple[str, ...]
    styles: tuple[int, ...]
    """Number of each preset's colour."""
    overall: tuple[Row, ...]
    groups: tuple[tuple[str, tuple[Row, ...]], ...]
    """Accuracy by segment and by camera, and its difference to the frozen model's."""
    note: str
    reliability: Chart
    shares: tuple[Share, ...]


def render_study(
    study: Study, views: Sequence[RunView], *, truth: pa.Table, input_url: str | None = None
) -> str:
    """The page for `study`, whose runs are `views`. Pictures are read again from `input_url`."""
    known = pc.is_in(truth["label"], pa.array(study.classes, pa.string()))
    names = pc.if_else(known, truth["label"], pa.scalar(None, pa.string()))
    seen = truth.set_column(truth.column_names.index("label"), "label", names)
    pictures: Callable[[pa.Table], Mapping[str, bytes]] = (
        (lambda wanted: {}) if input_url is None else functools.partial(read_pictures, input_url)
    )
    runs = [_against(view, views[0]) for view in views]
    title = f"{', '.join(study.presets)} on one stream"
    page = build_page(runs, truth=seen, pictures=pictures, title=title)
    page = dataclasses.replace(page, lead=_lead(study))
    extra = _extra(study, page.columns)
    package = "mint_stream.evaluation"
    return fill_template("evaluation.html", package=package, page=page, extra=extra)


def _against(view: RunView, frozen: RunView) -> RunView:
    """`view` with the answers of the frozen run as its source's: a preset may have templates."""
    labels, other = view.labels, frozen.labels
    at = pc.index_in(labels["frame"].combine_chunks(), value_set=other["frame"].combine_chunks())
    for source, name in (("source_label", "label"), ("source_confidence", "confidence")):
        column = labels.column_names.index(source)
        labels = labels.set_column(column, source, other[name].combine_chunks().take(at))
    return dataclasses.replace(view, labels=labels)


def _lead(study: Study) -> str:
    """What every preset reached, in a sentence each."""
    first, *others = study.presets
    score = study.score(first)
    right = percent(score.accuracy)
    said = [f"{score.frames:,} frames, of which the frozen model labels {right} right."]
    for preset in others:
        score = study.score(preset)
        said.append(f"{preset}: {percent(score.accuracy)}, {interval(score.difference)} points.")
    return " ".join(said)


def _extra(study: Study, columns: Sequence[str]) -> Extra:
    presets = study.presets
    # As the report colours its columns; what stands in none of them is the frozen model.
    styles = tuple(columns.index(p) % 4 + 1 if p in columns else 0 for p in presets)
    groups = [
        (title, tuple(_group_row(study, kind, name) for name in study.groups(kind)))
        for kind, title in _GROUPS.items()
        if len(study.groups(kind)) > 1
    ]
    return Extra(
        presets=presets,
        styles=styles,
        overall=tuple(
            Row(name, tuple(shown(p) for p in presets))
            for name, shown in overall_rows(study).items()
        ),
        groups=tuple(groups),
        note=note(study),
        reliability=_reliability(study.bins, dict(zip(presets, styles, strict=True))),
        shares=tuple(_shares(study)),
    )


def _group_row(study: Study, kind: str, name: str) -> Row:
    scores = [study.score(preset, kind, name) for preset in study.presets]
    first, *others = [percent(score.accuracy) for score in scores]
    gains = [interval(score.difference) for score in scores[1:]]
    return Row(name, (first, *(f"{at}, {gain}" for at, gain in zip(others, gains, strict=True))))


def _reliability(bins: Mapping[str, list[Bin]], styles: Mapping[str, int]) -> Chart:
    lines = tuple(
        Line(
            name,
            styles[name],
            (" ".join(f"{100 * b.confidence:.2f},{100 - 100 * b.accuracy:.2f}" for b in steps),),
        )
        for name, steps in bins.items()
    )
    ticks = tuple(Tick(at, f"{at} %") for at in (0, 25, 50, 75, 100))
    text = "share of right answers over their confidence; on the diagonal they are the same"
    return Chart("Reliability", text, ticks, (), lines)


def _shares(study: Study) -> list[Share]:
    frames = study.frames.filter(study.frames["known"])
    tables = {p: frames.filter(pc.equal(frames["preset"], p)) for p in study.presets}
    given = {p: Counter(table["label"].to_pylist()) for p, table in tables.items()}
    true = Counter(tables[study.presets[0]]["truth"].to_pylist())
    total = sum(true.values())
    most = max(max(counts.values()) for counts in (true, *given.values()))
    return [
        Share(
            name,
            percent(true[name] / total),
            100 * true[name] / most,
            tuple(percent(given[p][name] / total) for p in study.presets),
            tuple(100 * given[p][name] / most for p in study.presets),
        )
        for name in study.classes
    ]
