"""An input with bad frames in it, and runs over it in which processes are killed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drivers import Driver
from kills import PLAN, Plan
from oracle import check_verified
from stages import FRAMES
from tiny import members, put, tar, write_assets

UNIT = 4


@dataclass(frozen=True)
class World:
    """An input and a tiny CLIP in `folder`."""

    folder: Path
    input: str
    shards: int
    ids: list[str]

    @property
    def units(self) -> int:
        return self.shards * FRAMES // UNIT

    def run(self, plan: Plan, *, drivers: int = 1, **settings: Any) -> None:
        """Run until the run is complete, with a new driver for each that was killed."""
        config = self.prepare(plan, **settings)
        for _ in range(drivers):
            with self.driver(plan, config) as driver:
                code = driver.wait(900)
                assert code in (0, -9), driver.err
            if code == 0:
                check_verified(plan.output)
                return
        raise AssertionError(f"the last of {drivers} drivers was killed as well")

    def prepare(self, plan: Plan, **settings: Any) -> Path:
        """Write the plan, and the configuration of its drivers."""
        plan.save()
        run = {"unit_size": UNIT, "checkpoint_every_s": 0.2, **settings}
        content = {"input": self.input, "output": plan.output, "run": run}
        config = plan.folder / "config.json"
        config.write_text(json.dumps({**content, "assets": str(self.folder)}))
        return config

    def driver(self, plan: Plan, config: Path) -> Driver:
        """A driver for the plan, to be entered."""
        environment = {PLAN: str(plan.folder)}
        return Driver(["tests/faults/killable_run.py", str(config)], environment=environment)


def make_world(folder: Path, shards: int, input_url: str | None = None) -> World:
    """`shards` tars of FRAMES frames each; one in five cannot be decoded."""
    write_assets(folder)
    input_url = input_url or str(folder / "in")
    ids = []
    for shard in range(shards):
        contents = members(range(shard * FRAMES, (shard + 1) * FRAMES), cameras=("a", "b"))
        spoilt = [
            (name, b"spoilt" if name.endswith("2.png") or name.endswith("7.png") else data)
            for name, data in contents
        ]
        store = put(input_url, {f"{shard:03d}.tar": tar(spoilt)})
        uri = store.uri(f"{shard:03d}.tar")
        ids += [f"{uri}#{name}" for name, _ in contents if name.endswith(".png")]
    return World(folder, input_url, shards, ids)
