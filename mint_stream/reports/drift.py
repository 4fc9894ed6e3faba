"""How far each camera drifted along the stream, and when its domain changed: a plot and a list."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from mint_stream.output.read import strings
from mint_stream.reports.camera_events import FRAMES_TO_SETTLE, Settled
from mint_stream.reports.plots import (
    Chart,
    Floats,
    Ints,
    Line,
    Mark,
    Series,
    Tick,
    rolling_mean,
    stretches,
    window_for,
)
from mint_stream.reports.stream import Run, Stream

_STYLES = 4
"""Colours, and so cameras in the plot."""
_MOST_CHANGES = 40
"""In the list, and marks in the plot."""
_STEPS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)


@dataclass(frozen=True)
class Moved:
    """A camera's frames belong to another domain from here on."""

    position: int
    moment: str
    camera: str
    style: int
    before: int
    after: int
    known: bool
    """Whether the bank had this domain before."""
    drift: float
    """Mean of the frames by which the change settled."""
    bottom: float
    """Height of the line when its mean is of the new domain's frames alone."""


@dataclass(frozen=True)
class Drift:
    """What the report shows of it."""

    chart: Chart
    changes: tuple[Moved, ...]
    """The first of them."""
    unlisted: int


@dataclass(frozen=True)
class _Track:
    """The drift of one camera, and its changes."""

    series: Series
    changes: tuple[Moved, ...]


def drift_of(stream: Stream) -> Drift | None:
    """Of the first run that has domains; None where there is none."""
    run = next((r for r in stream.runs if pc.any(pc.is_valid(r.labels["drift"])).as_py()), None)
    if run is None:
        return None
    tracks = _tracks(stream, run)
    shown = tracks[:_STYLES]
    highest = max(float(track.series.values.max()) for track in shown)
    top = next((step for step in _STEPS if step >= highest), highest)
    changes = sorted((c for track in shown for c in track.changes), key=lambda c: c.position)
    few = f" of the {len(shown)} cameras of {len(tracks)} that drifted furthest"
    note = (
        f"distance{few if len(shown) < len(tracks) else ''} from the first domain of the bank, in "
        f"spreads of one domain, mean over {_window(stream)} frames"
        f"{' within a segment' if stream.bands else ''}; a dot where a camera's domain changed, a "
        "ring where to one that was known"
    )
    chart = Chart(
        title=f"Drift, {run.name}" if len(stream.runs) > 1 else "Drift",
        note=note,
        ticks=tuple(Tick(100 * at, f"{at * top:g}") for at in (0.0, 0.5, 1.0)),
        bands=stream.bands,
        lines=tuple(_line(track.series, stream, top) for track in shown),
        marks=tuple(_mark(change, stream.frames, top) for change in changes[:_MOST_CHANGES]),
    )
    listed = tuple(changes[:_MOST_CHANGES])
    return Drift(chart, listed, sum(len(t.changes) for t in tracks) - len(listed))


def _tracks(stream: Stream, run: Run) -> list[_Track]:
    """Of each camera, those that drifted furthest first."""
    table, positions = stream.placed(run.labels.filter(pc.is_valid(run.labels["drift"])))
    cameras, drift = strings(table, "camera"), table["drift"].to_numpy()
    entries = list(zip(*(table[n].to_pylist() for n in ("bank_scope", "bank_domain")), strict=True))
    units = table["unit"].to_pylist()
    first = dict(zip(entries[::-1], units[::-1], strict=True))
    peaks = {name: float(drift[cameras == name].max()) for name in dict.fromkeys(cameras)}
    names = sorted(peaks, key=lambda name: -peaks[name])
    # Those that are shown by name: colours do not change places from report to report.
    names[:_STYLES] = sorted(names[:_STYLES], key=str)
    found, window = [], _window(stream)
    for number, name in enumerate(names):
        rows = np.flatnonzero(cameras == name)
        smooth = _smooth(positions[rows], drift[rows], stream)
        series = Series(name or "no camera", 1 + number % _STYLES, positions[rows], smooth)
        settled: Settled[tuple[str, int], int] = Settled()
        changes = [change for k in rows if (change := settled.add(entries[k], 1, int(k)))]
        moved = []
        for change in changes:
            at = int(np.searchsorted(rows, change.since))
            moved.append(
                Moved(
                    position=int(positions[change.since]),
                    moment=stream.moment(int(positions[change.since])),
                    camera=series.name,
                    style=series.style,
                    before=change.before[1],
                    after=change.after[1],
                    known=first[change.after] != units[change.since],
                    drift=float(drift[rows[at : at + FRAMES_TO_SETTLE]].mean()),
                    bottom=float(smooth[min(at + window // 2, len(smooth) - 1)]),
                )
            )
        found.append(_Track(series, tuple(moved)))
    return found


def _window(stream: Stream) -> int:
    """Of one camera's frames. Fewer than in other plots: units are means already."""
    return max(9, window_for(stream.frames) // 4) | 1


def _smooth(positions: Ints, drift: Floats, stream: Stream) -> Floats:
    """Rolling means that never reach across two segments."""
    starts = [band.start for band in stream.bands][1:]
    parts = np.split(drift.astype(np.float64), np.searchsorted(positions, starts))
    return np.concatenate([rolling_mean(part, _window(stream)) for part in parts])


def _line(series: Series, stream: Stream, top: float) -> Line:
    points = stretches(series, 1, stream.frames, stream.bands, top)
    return Line(series.name, series.style, tuple(points))


def _mark(change: Moved, frames: int, top: float) -> Mark:
    text = f"{change.moment}: {change.camera}, domain {change.before} to {change.after}"
    left = round((change.position + 0.5) / frames * 100, 2)
    return Mark(change.style, left, round(100 * change.bottom / top, 2), text, change.known)
