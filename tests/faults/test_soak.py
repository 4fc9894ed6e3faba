"""Kills at random moments, of random processes, until there were many: `pytest -m soak`."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest
from drivers import Driver, wait_until
from kills import VICTIMS, Plan
from oracle import Output, check_bank, check_frames, check_same
from tiny import METHOD
from world import World, make_world

KILLS = 24
SEED = 20260301


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("labelers", [1, 3])
def test_random_kills(labelers: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = make_world(tmp_path / "world", shards=12)
    plan = Plan(tmp_path / "disturbed", str(tmp_path / "disturbed/out"), [])
    started = time.monotonic()
    kills = disturb(world, plan, random.Random(SEED + labelers), num_labelers=labelers)
    seconds = time.monotonic() - started
    output = Output.read(plan.output)
    with capsys.disabled():
        print(f"\n{table(kills, output, world, seconds, labelers)}")
    assert len(kills) >= KILLS
    check_frames(output, world.ids)
    check_bank(output, METHOD, removed=plan.removed())
    if labelers > 1:
        # The order in which units were merged is another in every run.
        return
    undisturbed = Plan(tmp_path / "undisturbed", str(tmp_path / "undisturbed/out"), [])
    world.run(undisturbed)
    check_same(output, Output.read(undisturbed.output))
    with capsys.disabled():
        print("labels and bank bit-identical to those of a run without kills")


def disturb(
    world: World, plan: Plan, chance: random.Random, **settings: object
) -> list[tuple[str, int]]:
    """Run to the end over at least KILLS kills; gives victims and units committed by then."""
    kills: list[tuple[str, int]] = []
    config = world.prepare(plan, **settings)
    while True:
        with world.driver(plan, config) as driver:
            while driver.process.poll() is None:
                if len(kills) < KILLS:
                    strike(plan, driver, chance, kills)
                else:
                    driver.process.wait()
            code = driver.process.returncode
            assert code in (0, -9), driver.err
        if code == 0:
            return kills


def strike(plan: Plan, driver: Driver, chance: random.Random, kills: list[tuple[str, int]]) -> None:
    """Kill somebody, some time after the next commit since the last kill."""
    before = kills[-1][1] if kills else 0
    victim, delay_s = chance.choice(VICTIMS), chance.uniform(0, 0.5)

    def due() -> bool:
        return driver.process.poll() is not None or plan.committed() > before

    wait_until(due, f"a commit after kill {len(kills)}", within_s=600)
    time.sleep(delay_s)  # a random moment is what this is about
    process = plan.find(victim, driver.token)
    if process is None or driver.process.poll() is not None:
        return
    committed = plan.committed()
    process.kill()
    kills.append((victim, committed))


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
