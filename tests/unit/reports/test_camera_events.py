"""A change is told once, when it has settled, and dated to when it began."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from mint_stream.output.units import CameraDomain, CommittedUnit, UnitFacts
from mint_stream.reports.camera_events import FRAMES_TO_SETTLE, CameraEvents, Change, Settled

UNIT = 16
ENOUGH = FRAMES_TO_SETTLE // UNIT


def changes(values: Sequence[int]) -> list[tuple[int, Change[int, int]]]:
    """With the number of the unit that completed it."""
    settled: Settled[int, int] = Settled()
    found = [(at, settled.add(value, UNIT, at)) for at, value in enumerate(values)]
    return [(at, change) for at, change in found if change]


def test_a_change_is_dated_to_its_beginning() -> None:
    values = [0] * 5 + [1] * ENOUGH + [0] * 2 + [1] * 9
    assert changes(values) == [(4 + ENOUGH, Change(0, 1, 5))]


def test_what_comes_back_in_time_is_no_change() -> None:
    assert changes(([0] + [1] * (ENOUGH - 1)) * 20) == []


def test_leaving_counts_even_where_nothing_else_holds() -> None:
    """Two entries of one light, and units that go to this one and to that."""
    assert changes([0, 0] + [1, 2, 2, 1, 2] * 20)[0] == (1 + ENOUGH, Change(0, 1, 2))
    others = [3, 2, 2, 3, 2]
    settled: Settled[int, int] = Settled()
    settled.add(0, UNIT, 0)
    found = [settled.add(value, FRAMES_TO_SETTLE // 5 + 1, at) for at, value in enumerate(others)]
    assert found == [None] * 4 + [Change(0, 2, 0)]


def unit(name: str, *, won: bool = True, **cameras: tuple[int, str]) -> CommittedUnit:
    said = tuple(
        CameraDomain(camera=camera, domain=domain, guard=guard, drift=0.5, frames=FRAMES_TO_SETTLE)
        for camera, (domain, guard) in cameras.items()
    )
    return CommittedUnit(unit=name, won=won, facts=UnitFacts(cameras=said))


def test_every_camera_is_followed_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    events = CameraEvents()
    events.add(unit("u0", north=(0, "learning"), south=(0, "learning")))
    events.add(unit("u1", north=(0, "adapting"), south=(0, "learning")))
    events.add(unit("u2", won=False, north=(3, "adapting"), south=(3, "learning")))
    events.add(unit("u3", south=(1, "learning")))
    told = [(r.message, r.before, r.after, r.drift) for r in caplog.records]  # type: ignore[attr-defined]
    assert told == [("guard changed", "learning", "adapting", 0.5), ("domain changed", 0, 1, 0.5)]
