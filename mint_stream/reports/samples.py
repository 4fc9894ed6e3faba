"""Which frames a report shows, and their pictures, small enough to be embedded."""

from __future__ import annotations

import base64
import dataclasses
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mint_stream.input.images import ImageError, decode
from mint_stream.reports.stream import Stream
from mint_stream.reports.text import percent

log = logging.getLogger(__name__)

THUMBNAIL_PIXELS = 176
_CARDS_A_SEGMENT = 6
_CARDS = 12
_SHOWN_CHANGES = 2
_MOST_GROUPS = 24


@dataclass(frozen=True)
class CardAnswer:
    """One model's answer under a sample frame."""

    name: str
    label: str
    confidence: str
    mark: str
    spoken: str
    tone: str


@dataclass(frozen=True)
class Card:
    """A sample frame, the `position`-th of the stream."""

    position: int
    frame: str
    truth: str | None
    answers: tuple[CardAnswer, ...]
    picture: str | None = None


@dataclass(frozen=True)
class Group:
    """Sample frames that belong together."""

    name: str
    note: str
    cards: tuple[Card, ...]

    def with_pictures(self, uris: Mapping[str, str]) -> Group:
        """The group with the pictures that `uris` has for its frames."""
        cards = (dataclasses.replace(c, picture=uris.get(c.frame)) for c in self.cards)
        return dataclasses.replace(self, cards=tuple(cards))


def groups_by_segment(stream: Stream) -> tuple[list[Group], str]:
    """Samples of each segment whose truth is known, and a line on how they were chosen."""
    primary = stream.primary
    known = ~np.isnan(primary.right)
    wrong_before = primary.source_labels != stream.truth[primary.positions]
    changed = np.zeros((2, stream.frames), dtype=bool)
    changed[0, primary.positions] = known & (primary.right == 1) & wrong_before
    changed[1, primary.positions] = known & (primary.right == 0) & ~wrong_before
    candidates = primary.positions[known]
    names = dict.fromkeys(name for name in stream.domains if name is not None)
    rows = {row.name: row for row in stream.accuracy[next(iter(stream.accuracy))][:-1]}
    groups = []
    for name in list(names)[:_MOST_GROUPS] or [None]:
        inside = candidates[stream.domains[candidates] == name]
        count = _CARDS if name is None else _CARDS_A_SEGMENT
        positions = choose(inside, changed[0], changed[1], count)
        note = ""
        if name in rows:
            row = rows[name]
            note = f"frozen {percent(row.source_accuracy)}"
            if stream.adapted:
                note += f", {primary.name} {percent(row.accuracy)}"
        groups.append(Group(name or "All frames", note, tuple(_cards(stream, positions))))
    note = "Evenly spaced through each segment"
    if stream.adapted:
        note += (
            f", but first up to {_SHOWN_CHANGES} frames each that adapting ({primary.name}) fixed "
            "and broke"
        )
    return groups, note + ". The first line is what is really there; percentages are confidence."


def groups_without_truth(stream: Stream) -> tuple[list[Group], str]:
    """Samples that a person should look at first, and a line that says why."""
    primary = stream.primary
    doubtful = primary.positions[least_sure(primary.confidence, _CARDS)].tolist()
    groups = [Group("Least sure", f"lowest confidence of {primary.name}", _cards(stream, doubtful))]
    changed = primary.positions[primary.changed]
    if len(changed):
        spread = _spread(changed, _CARDS)
        note = f"{len(changed):,} of {len(primary.positions):,} answers"
        groups.append(Group("Changed by adapting", note, _cards(stream, spread)))
    return groups, "Percentages are confidence; there is no truth to hold the answers against."


def _cards(stream: Stream, positions: Sequence[int]) -> tuple[Card, ...]:
    frames = stream.table["frame"]
    return tuple(
        Card(p, frames[p].as_py(), stream.truth[p], tuple(_card_answers(stream, p)))
        for p in positions
    )


def _card_answers(stream: Stream, position: int) -> Iterator[CardAnswer]:
    for answers in stream.answers:
        k = int(np.searchsorted(answers.positions, position))
        if k == len(answers.positions) or answers.positions[k] != position:
            continue
        right = answers.right[k]
        mark, spoken, tone = (
            ("\N{MIDDLE DOT}", "", "")
            if np.isnan(right)
            else ("\N{CHECK MARK}", "right", "better")
            if right
            else ("\N{MULTIPLICATION X}", "wrong", "worse")
        )
        confidence = f"{100 * answers.confidence[k]:.0f} %"
        yield CardAnswer(answers.name, answers.labels[k], confidence, mark, spoken, tone)


def choose(
    indices: NDArray[np.integer],
    fixed: NDArray[np.bool_],
    broken: NDArray[np.bool_],
    count: int,
) -> list[int]:
    """`count` of `indices` (or all), in order: frames that changed, then evenly spaced ones.

    `fixed` and `broken` mark over all frames those where adapting made a wrong answer right or a
    right one wrong: both are shown, so that the choice flatters nobody.
    """
    if not len(indices):
        return []
    chosen: list[int] = []
    for changed in (fixed, broken):
        chosen += _spread(indices[changed[indices]], _SHOWN_CHANGES)
    chosen = chosen[:count]
    rest = indices[~np.isin(indices, chosen)]
    return sorted(chosen + _spread(rest, count - len(chosen)))


def least_sure(confidence: NDArray[np.floating], count: int) -> list[int]:
    """Indices of the `count` lowest values, the lowest first."""
    return [int(k) for k in np.argsort(confidence, kind="stable")[:count]]


def thumbnails(pictures: Mapping[str, bytes], frames: Sequence[str]) -> dict[str, str]:
    """The pictures of `frames` as `data:` URIs, at most `THUMBNAIL_PIXELS` wide and high."""
    found = {}
    for frame in frames:
        if frame in pictures:
            try:
                found[frame] = _thumbnail(pictures[frame])
            except ImageError as error:
                log.warning("no picture of %s in the report: %s", frame, error)
    return found


def _thumbnail(data: bytes) -> str:
    image = Image.fromarray(decode(data).rgb_HW3)
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=86, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _spread(indices: NDArray[np.integer], count: int) -> list[int]:
    """Up to `count` of `indices`, evenly spaced."""
    count = min(count, len(indices))
    if count <= 0:
        return []
    at = (np.arange(count) + 0.5) * len(indices) / count
    return [int(k) for k in indices[at.astype(np.int64)]]
