"""When a camera's domain, or what the guard says of it, has changed: what operators are told of.

Entries of a bank can lie close together, and then units of one light go to this one and to that.
So a change counts once so many frames in a row have left what held before.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from mint_stream.logs import about
from mint_stream.output.units import CommittedUnit

log = logging.getLogger(__name__)

FRAMES_TO_SETTLE = 64
"""Of one camera, in a row."""

Value = TypeVar("Value", bound=Hashable)
Moment = TypeVar("Moment")


@dataclass(frozen=True)
class Change(Generic[Value, Moment]):
    """From `since` on, another value."""

    before: Value
    after: Value
    since: Moment


class Settled(Generic[Value, Moment]):
    """The value that one camera's frames have, and when it changed.

    It changes once `FRAMES_TO_SETTLE` frames in a row had others, to what most of those had.
    """

    def __init__(self) -> None:
        self._value: Value | None = None
        self._others: Counter[Value] = Counter()
        self._since: Moment

    def add(self, value: Value, frames: int, at: Moment) -> Change[Value, Moment] | None:
        """Take in the next frames, which begin `at`; gives the change that they complete."""
        if self._value is None:
            self._value = value
        if value == self._value:
            self._others.clear()
            return None
        if not self._others:
            self._since = at
        self._others[value] += frames
        if self._others.total() < FRAMES_TO_SETTLE:
            return None
        change = Change(self._value, self._others.most_common(1)[0][0], self._since)
        self._value = change.after
        self._others.clear()
        return change


class CameraEvents:
    """Logs each camera's changes, as units are committed."""

    def __init__(self) -> None:
        self._settled: dict[tuple[str, str], Settled[int | str, str]] = {}

    def add(self, unit: CommittedUnit) -> None:
        """Take in a unit."""
        if not unit.won:
            return
        for camera in unit.facts.cameras:
            said: dict[str, int | str] = {"domain": camera.domain, "guard": camera.guard}
            for what, value in said.items():
                settled = self._settled.setdefault((camera.camera, what), Settled())
                change = settled.add(value, camera.frames, unit.unit)
                if change is not None:
                    facts = {"before": change.before, "after": change.after}
                    with about(unit=change.since, camera=camera.camera or None):
                        log.info("%s changed", what, extra={**facts, "drift": camera.drift})
