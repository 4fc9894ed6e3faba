"""A study as one table on the terminal."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from mint_stream.evaluation.metrics import BINS, Interval
from mint_stream.evaluation.scores import Score, Study
from mint_stream.reports.text import percent, points

Shown = Callable[[str], str]
"""From a preset to what stands in its column."""


def print_study(study: Study, console: Console) -> None:
    """Accuracy by segment, by camera and over all, and what it cost: a column for each preset."""
    table = Table(box=None, header_style="bold")
    table.add_column("", no_wrap=True)
    table.add_column("frames", justify="right", no_wrap=True)
    for preset in study.presets:
        table.add_column(preset, justify="right", overflow="fold", min_width=10)
    for kind in ("domain", "camera"):
        for name in study.groups(kind):
            frames = f"{study.score(study.presets[0], kind, name).frames:,}"
            table.add_row(name, frames, *(_gain(study.score(p, kind, name)) for p in study.presets))
        table.add_section()
    for title, shown in overall_rows(study).items():
        frames = f"{study.score(study.presets[0]).frames:,}" if title == "accuracy" else ""
        table.add_row(title, frames, *(shown(preset) for preset in study.presets))
    console.print(table)
    console.print(note(study), soft_wrap=True)


def overall_rows(study: Study) -> dict[str, Shown]:
    """What is told of each preset over the whole stream, by its name."""
    rows: dict[str, Shown] = {
        "accuracy": lambda p: percent(study.score(p).accuracy),
        "macro accuracy": lambda p: percent(study.score(p).macro),
        "to frozen, points": lambda p: points(study.score(p).difference.mean),
        "95 % from": lambda p: points(study.score(p).difference.low),
        "95 % to": lambda p: points(study.score(p).difference.high),
        "worst 500 frames": lambda p: points(study.score(p).worst),
        "ECE": lambda p: percent(study.score(p).calibration_error),
        "histogram off by": lambda p: percent(study.score(p).histogram_distance),
        "adapted": lambda p: percent(study.score(p).adapted),
        "passes a frame": lambda p: f"{study.costs[p].passes_a_frame:.0f}",
        "ms a frame": lambda p: f"{study.costs[p].ms_a_frame:.1f}",
    }
    if any(share < 1 for share in study.answered.values()):
        rows["labelled at all"] = lambda p: percent(study.answered[p])
    if any(frames for frames, _ in study.unknown.values()):
        rows["sure of unknown"] = lambda p: percent(study.unknown[p][1])
    return rows


def interval(difference: Interval) -> str:
    """A difference in percentage points with its 95 % interval."""
    return f"{points(difference.mean)} ({points(difference.low)}..{points(difference.high)})"


def note(study: Study) -> str:
    """How the intervals were made, and what is not counted."""
    unknown = study.unknown[study.presets[0]][0]
    said = (
        f"Intervals: 95 %, paired, from a circular block bootstrap over blocks of {study.block} "
        "frames (twice the mean run of one class, at least the cube root of the frames). ECE: "
        f"expected calibration error over {BINS} steps of confidence. Histogram: share of the "
        "labels that another class would have to have. The worst 500 frames are "
        "consecutive ones."
    )
    return said + (
        f" {unknown:,} frames of unknown class count in `sure of unknown` alone." if unknown else ""
    )


def _gain(score: Score) -> str:
    return f"{percent(score.accuracy)[:-2]} {points(score.difference.mean):>5}"
