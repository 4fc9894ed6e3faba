"""kill -9 at enumerated points: the run completes, every frame once, labels and bank bit for bit.

Every kind of process at every point: one run for each kind, in which one kill follows the other.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest
from kills import POINTS, Kill, Plan
from oracle import Output, check_bank, check_frames, check_same
from stages import DyingLabelUnits, losing_read_units
from tiny import METHOD
from world import World

from mint_stream.pipeline import dataset
from mint_stream.pipeline.summary import RunFailed

WorldOn = Callable[[str], tuple[World, Output]]


def everywhere(*victims: str) -> tuple[Kill, ...]:
    """A kill at each point, each after one more committed unit; the victims take turns."""
    return tuple(
        Kill(victim, moment, operation, after_units)
        for after_units, ((moment, operation), victim) in enumerate(
            zip(POINTS, cycle(victims)), start=1
        )
    )


@pytest.mark.parametrize(
    ("place", "victims"),
    [
        ("local", ["labeler"]),
        ("local", ["read"]),
        ("local", ["commit"]),
        ("local", ["bank"]),
        ("local", ["worker"]),
        ("s3", ["labeler", "commit"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "-and-".join(value),
)
def test_a_run_survives(place: str, victims: list[str], world_on: WorldOn, tmp_path: Path) -> None:
    world, undisturbed = world_on(place)
    plan = world.plan(tmp_path, everywhere(*victims))
    world.run(plan)
    check_survived(plan, world, undisturbed)


def test_bank_server_and_labeler_die_together(world_on: WorldOn, tmp_path: Path) -> None:
    world, undisturbed = world_on("local")
    points = (("before", "merge"), ("after", "merge"), ("after", "log"), ("before", "labels"))
    plan = world.plan(
        tmp_path, tuple(Kill("bank+labeler", *point, n) for n, point in enumerate(points, start=2))
    )
    world.run(plan)
    check_survived(plan, world, undisturbed)


def test_a_stream_that_loses_a_parcel_is_handed_out_anew(
    world_on: WorldOn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As when a read task dies and its repetition finds another input."""
    world, undisturbed = world_on("local")
    plan = world.plan(tmp_path)
    world.run(plan, losing_read_units)
    assert "the stream broke off" in caplog.text
    check_survived(plan, world, undisturbed)


def test_a_labeler_that_dies_again_and_again_ends_the_run(
    world_on: WorldOn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, _ = world_on("local")
    monkeypatch.setattr(dataset, "LabelUnits", DyingLabelUnits)
    with pytest.raises(RunFailed, match=r"the labeler died, for the 4th time .* too little memory"):
        world.run(world.plan(tmp_path))


def test_a_run_is_continued_by_the_next_driver(world_on: WorldOn, tmp_path: Path) -> None:
    world, undisturbed = world_on("local")
    plan = world.plan(tmp_path, everywhere("driver"))
    with world.drivers(plan) as driver:
        assert driver.wait(600) == 0, driver.err
        check_survived(plan, world, undisturbed)


def check_survived(plan: Plan, world: World, undisturbed: Output) -> None:
    """Hold what came out against a run in which nothing happened."""
    done = plan.done()
    assert {d.kill for d in done} == set(plan.kills), "every kill happened"
    assert all(1 <= d.committed < world.units for d in done), "with commits before and after it"
    output = Output.read(plan.output)
    check_frames(output, world.ids)
    check_bank(output, METHOD, removed=plan.removed())
    check_same(output, undisturbed)
