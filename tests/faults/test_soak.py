"""Kills at random moments, of random processes, until there were many: `pytest -m soak`."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest
from drivers import Driver, wait_until
from kills import VICTIMS, Plan
from oracle import Output, check_bank, check_bank_but_for_order, check_frames, check_same
from tiny import METHOD
from world import World, make_world

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

KILLS = 24
SEED = 20260301
APART = 3
"""Commits from one kill to the next: with as many units under way, what was merged before the one
is committed before the other. Bank server and labeler never die together: see the guarantees."""


@pytest.mark.parametrize("labelers", [1, 3])
def test_random_kills(
    labelers: int, cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = make_world(tmp_path / "world", shards=16)
    plan = world.plan(tmp_path / "disturbed")
    started = time.monotonic()
    with world.drivers(plan, num_labelers=labelers) as driver:
        kills = disturb(plan, driver, random.Random(SEED + labelers))
        assert driver.wait(600) == 0, driver.err
    seconds = time.monotonic() - started
    output = Output.read(plan.output)
    with capsys.disabled():
        print(f"\n{table(kills, output, world, seconds, labelers)}")
    assert len(kills) == KILLS
    check_frames(output, world.ids)
    if labelers > 1:
        # The order in which units were merged is another in every run.
        check_bank_but_for_order(output, METHOD, removed=plan.removed())
        return
    check_bank(output, METHOD, removed=plan.removed())
    undisturbed = world.plan(tmp_path / "undisturbed")
    world.run(undisturbed)
    check_same(output, Output.read(undisturbed.output))


def disturb(plan: Plan, driver: Driver, chance: random.Random) -> list[tuple[str, int]]:
    """KILLS kills in turn; gives victims and units committed by then."""
    kills: list[tuple[str, int]] = []
    while len(kills) < KILLS and driver.process.poll() is None:
        before = kills[-1][1] if kills else 1 - APART
        due_at, victim = before + APART, chance.choice(VICTIMS)

        def due(due_at: int = due_at) -> bool:
            return driver.process.poll() is not None or plan.committed() >= due_at

        wait_until(due, f"{due_at} commits, after kill {len(kills)}")
        time.sleep(chance.uniform(0, 0.5))  # a random moment is what this is about
        process = plan.find(victim)
        if process is not None:
            committed = plan.committed()
            process.kill()
            kills.append((victim, committed))
    return kills


def table(
    kills: list[tuple[str, int]], output: Output, world: World, seconds: float, labelers: int
) -> str:
    """Kills by victim, and what stood in the output in the end."""
    counts = Counter(victim for victim, _ in kills)
    labels = sum(table.num_rows for table in output.labels.values())
    rejects = sum(table.num_rows for table in output.rejects.values())
    return "\n".join(
        [
            f"{len(kills)} kills in {seconds:.0f} s, {labelers} labeler(s): "
            + ", ".join(f"{victim} {counts[victim]}" for victim in VICTIMS),
            f"commits: {len(output.labels)} of {world.units} units; "
            f"frames: {labels} labelled and {rejects} rejected of {len(world.ids)}",
        ]
    )
