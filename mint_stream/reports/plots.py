"""The geometry of a report's plots: from arrays to points in percent of the plotting area.

Only numbers leave this module; the page's template draws them as inline SVG that stretches with
the screen and sets all text around it. x runs over frames in the order of the stream, y upwards.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

_MOST_POINTS = 400
"""Points in one line: more than a screen has pixels for would only make the file large."""
_MOST_BANDS = 24
_MOST_STEPS = 48
_FRAMES_A_STEP = 24


@dataclass(frozen=True)
class Band:
    """A stretch of the stream with one domain: frames from `start` up to before `stop`."""

    name: str
    start: int
    stop: int
    left: float
    """Where it begins, percent of the stream."""
    width: float


@dataclass(frozen=True)
class Series:
    """Values of one answerer: `values` at the frame numbers `positions`, which grow."""

    name: str
    style: int
    """Number of its colour; 0 is the frozen model's."""
    positions: Ints
    values: Floats


@dataclass(frozen=True)
class Line:
    """A series ready to draw: one list of points for each stretch that is drawn without a gap."""

    name: str
    style: int
    points: tuple[str, ...]


@dataclass(frozen=True)
class Tick:
    """A line across the plot, `at` percent above its bottom."""

    at: float
    text: str


@dataclass(frozen=True)
class Mark:
    """A moment on a line, `left` and `bottom` in percent of the plot."""

    style: int
    left: float
    bottom: float
    text: str
    hollow: bool


@dataclass(frozen=True)
class Chart:
    """One plot: lines with marks on them, or areas that are stacked on each other."""

    title: str
    note: str
    ticks: tuple[Tick, ...]
    bands: tuple[Band, ...]
    lines: tuple[Line, ...] = ()
    areas: tuple[Line, ...] = ()
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One bank entry: column and row in the grid, and how strongly it is coloured (0 to 1)."""

    column: int
    row: int
    strength: float
    entry: int
    usage: int


@dataclass(frozen=True)
class UsageGrid:
    """How often each entry of one bank was retrieved."""

    scope: str
    columns: int
    rows: int
    cells: tuple[Cell, ...]
    entries: int
    used: int
    retrievals: int
    top_share: float
    """Share of all retrievals that went to the ten entries used most, in [0, 1]."""
    ranked: str
    """Outline of usage (logarithmic) over rank, the entry used most first."""


def find_bands(domains: Sequence[str | None]) -> tuple[Band, ...]:
    """The stretches of the stream with one domain; none where there are too many to be shown."""
    bands, start = [], 0
    for name, group in itertools.groupby(domains):
        length = sum(1 for _ in group)
        if name is not None:
            share = 100 / len(domains)
            bands.append(Band(name, start, start + length, start * share, length * share))
        start += length
    return tuple(bands) if len(bands) <= _MOST_BANDS else ()


def window_for(frames: int) -> int:
    """How many frames a rolling mean is taken over: odd, between 9 and 501."""
    return min(501, max(9, frames // 16)) | 1


def rolling_chart(
    title: str,
    series: Sequence[Series],
    *,
    frames: int,
    bands: tuple[Band, ...] = (),
    top: float = 1.0,
    percent: bool = True,
) -> Chart:
    """Rolling means of `series`, each value in [0, top], which never reach across two bands."""
    window = window_for(frames)
    lines = tuple(
        Line(s.name, s.style, tuple(stretches(s, window, frames, bands, top))) for s in series
    )
    levels = np.linspace(0, top, 5 if percent else 3)
    ticks = [Tick(100 * v / top, f"{100 * v:.0f} %" if percent else f"{v:g}") for v in levels]
    within = " within a segment" if bands else ""
    return Chart(title, f"mean over {window} frames{within}", tuple(ticks), bands, lines)


def rolling_mean(values: Floats, window: int) -> Floats:
    """Mean over the `window` values around each; fewer at the ends. NaN counts as missing."""
    known = ~np.isnan(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    index = np.arange(len(values))
    low = np.maximum(index - window // 2, 0)
    high = np.minimum(index + window // 2 + 1, len(values))
    with np.errstate(invalid="ignore"):
        mean: Floats = (sums[high] - sums[low]) / (counts[high] - counts[low])
    return mean


def label_chart(labels: Sequence[str], *, most: int = 7) -> Chart:
    """How the stream's labels are shared out over time: the `most` frequent, and the others."""
    frequent = [name for name, _ in Counter(labels).most_common(most)]
    groups = [*frequent, *(["others"] if len(set(labels)) > most else [])]
    number = {name: k for k, name in enumerate(frequent)}
    codes = np.array([number.get(label, len(frequent)) for label in labels])
    steps = min(_MOST_STEPS, max(1, len(codes) // _FRAMES_A_STEP))
    bins = np.array_split(codes, steps)
    shares = np.array([np.bincount(b, minlength=len(groups)) / len(b) for b in bins])
    edges = np.concatenate([np.zeros((len(bins), 1)), np.cumsum(shares, axis=1)], axis=1) * 100
    # The first and the last step are drawn out to the edges.
    edges = edges[[0, *range(steps), -1]]
    x = np.array([0, *((np.arange(steps) + 0.5) / steps), 1]) * 100
    areas = []
    for k, name in enumerate(groups):
        up = zip(x, edges[:, k + 1], strict=True)
        down = zip(x[::-1], edges[::-1, k], strict=True)
        areas.append(Line(name, k, (" ".join(_point(px, py) for px, py in (*up, *down)),)))
    ticks = tuple(Tick(at, f"{at} %") for at in (0, 50, 100))
    note = f"share of each label, in {steps} steps"
    return Chart("Labels over time", note, ticks, (), areas=tuple(areas))


def usage_grid(scope: str, usage_by_entry: Mapping[int, int]) -> UsageGrid:
    """A grid with one cell for each entry; the colour grows with the logarithm of its usage."""
    entries = max(usage_by_entry, default=-1) + 1
    usage = np.zeros(entries, dtype=np.int64)
    for entry, count in usage_by_entry.items():
        usage[entry] = count
    columns = 32 if entries <= 1024 else 64
    strength = np.log1p(usage) / max(np.log1p(usage.max(initial=0)), 1e-9)
    cells = tuple(
        Cell(k % columns, k // columns, round(float(strength[k]), 3), k, int(usage[k]))
        for k in range(entries)
    )
    ranked = np.sort(usage)[::-1]
    total = int(usage.sum())
    x = np.arange(entries) / max(entries - 1, 1) * 100
    heights = np.sort(strength)[::-1] * 100
    outline = [_point(x[k], heights[k]) for k in _thin(entries)]
    return UsageGrid(
        scope=scope,
        columns=columns,
        rows=-(-entries // columns),
        cells=cells,
        entries=entries,
        used=int((usage > 0).sum()),
        retrievals=total,
        top_share=float(ranked[:10].sum() / total) if total else 0.0,
        ranked=" ".join([_point(0, 0), *outline, _point(100, 0)]),
    )


def stretches(
    series: Series, window: int, frames: int, bands: tuple[Band, ...], top: float
) -> list[str]:
    """The points of the rolling mean of a series, one list for each band."""
    spans = [(band.start, band.stop) for band in bands] or [(0, frames)]
    found = []
    for start, stop in spans:
        inside = (series.positions >= start) & (series.positions < stop)
        if not inside.any():
            continue
        x = (series.positions[inside] + 0.5) / frames * 100
        y = rolling_mean(series.values[inside], window) / top * 100
        keep = [k for k in _thin(len(x), len(spans)) if not np.isnan(y[k])]
        if len(keep) == 1:  # a line needs two points to be seen
            half = 50 / frames
            found.append(
                f"{_point(x[keep[0]] - half, y[keep[0]])} {_point(x[keep[0]] + half, y[keep[0]])}"
            )
        elif keep:
            found.append(" ".join(_point(x[k], y[k]) for k in keep))
    return found


def _thin(count: int, parts: int = 1) -> list[int]:
    """Indices of at most about `_MOST_POINTS / parts` of `count` points, with both ends."""
    most = max(2, _MOST_POINTS // parts)
    if count <= most:
        return list(range(count))
    return sorted({int(k) for k in np.linspace(0, count - 1, most).round()})


def _point(x: float, y: float) -> str:
    """SVG counts downwards."""
    return f"{x:.2f},{100 - y:.2f}"
