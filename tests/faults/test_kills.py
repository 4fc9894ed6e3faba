"""kill -9 at enumerated points: the run completes, every frame once, labels and bank bit for bit.

By default a selection, several kills to a run; with `-m soak` every victim at every point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from kills import MOMENTS, POINTS, VICTIMS, Kill, Plan
from oracle import Output, check_bank, check_frames, check_same
from tiny import METHOD
from world import World

Planned = Callable[[Sequence[Kill]], Plan]

AT_LABELERS = [
    ("labeler", "after", "merge"),
    ("read", "before", "merge"),
    ("labeler", "before", "merge"),
    ("worker", "after", "labels"),
    ("read", "after", "log"),
    ("labeler", "after", "labels"),
]
AT_COMMITS = [("commit", m, p) for p in ("rejects", "log", "labels") for m in MOMENTS]
AT_THE_BANK = [
    ("bank", "before", "merge"),
    ("bank", "after", "merge"),
    ("bank", "before", "checkpoint"),
    ("bank", "after", "checkpoint"),
    ("bank", "after", "manifest"),
    ("bank", "before", "removal"),
    ("bank", "after", "removal"),
    ("bank", "after", "log"),
    ("bank", "before", "labels"),
    ("bank", "after", "labels"),
]
OF_THE_DRIVER = [
    ("driver", "after", "merge"),
    ("driver", "before", "labels"),
    ("driver", "after", "checkpoint"),
    ("driver", "before", "removal"),
]


def spread(kills: Sequence[tuple[str, str, str]], *, first: int = 1, every: int = 2) -> list[Kill]:
    """The kills one after the other, each after `every` more committed units."""
    # Log objects are removed once there are three checkpoints: not before the fourth unit.
    return [
        Kill(victim, moment, point, max(first + every * n, 4 if point == "removal" else 0))
        for n, (victim, moment, point) in enumerate(kills)
    ]


@pytest.mark.parametrize(
    "kills",
    [
        AT_LABELERS,
        AT_COMMITS,
        # Restarts of the bank server and of the driver, one after the other, take their time.
        pytest.param(AT_THE_BANK, marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
        pytest.param(OF_THE_DRIVER, marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
    ],
    ids=lambda kills: kills[0][0],
)
def test_a_run_survives(
    kills: list[tuple[str, str, str]], world: World, undisturbed: Output, planned: Planned
) -> None:
    survive(planned(spread(kills)), world, undisturbed)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("victim", VICTIMS)
def test_a_run_survives_everywhere(
    victim: str, world: World, undisturbed: Output, planned: Planned
) -> None:
    points = [(victim, moment, point) for point in POINTS for moment in MOMENTS]
    survive(planned(spread(points, every=1)), world, undisturbed)


def survive(plan: Plan, world: World, undisturbed: Output) -> None:
    """Carry out the plan and hold what came out against a run in which nothing happened."""
    world.run(plan, drivers=1 + sum(kill.victim == "driver" for kill in plan.kills))
    done = plan.done()
    assert {d.kill for d in done} == set(plan.kills), "every kill happened"
    assert all(1 <= d.committed < world.units for d in done), "with commits before and after it"
    output = Output.read(plan.output)
    check_frames(output, world.ids)
    check_bank(output, METHOD, removed=plan.removed())
    check_same(output, undisturbed)
