"""An input with bad frames in it, and runs over it in which processes are killed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drivers import Driver
from kills import PLAN, Plan
from stages import FRAMES
from tiny import members, put, tar, write_assets

UNIT = 4


@dataclass(frozen=True)
class World:
    """An input and a tiny CLIP in `folder`."""

    folder: Path
    shards: int
    ids: list[str]

    @property
    def units(self) -> int:
        return self.shards * FRAMES // UNIT

    def run(self, plan: Plan, *, drivers: int = 1, **settings: Any) -> None:
        """Run until the run is complete, with a new driver for each that was killed."""
        plan.save()
        config = plan.folder / "config.json"
        run = {"unit_size": UNIT, "checkpoint_every_s": 0.2, **settings}
        content = {"input": str(self.folder / "in"), "output": plan.output, "run": run}
        config.write_text(json.dumps({**content, "assets": str(self.folder)}))
        for _ in range(drivers):
            with Driver(
                ["tests/faults/killable_run.py", str(config)], environment={PLAN: str(plan.folder)}
            ) as driver:
                code = driver.wait(900)
                assert code in (0, -9), driver.err
            if code == 0:
                return
        raise AssertionError(f"the last of {drivers} drivers was killed as well")


def make_world(folder: Path, shards: int) -> World:
    """`shards` tars of FRAMES frames; in each unit one that cannot be decoded."""
    write_assets(folder)
    ids = []
    for shard in range(shards):
        contents = members(range(shard * FRAMES, (shard + 1) * FRAMES), cameras=("a", "b"))
        spoilt = [
            (name, b"spoilt" if name.endswith("2.png") or name.endswith("7.png") else data)
            for name, data in contents
        ]
        store = put(str(folder / "in"), {f"{shard:03d}.tar": tar(spoilt)})
        uri = store.uri(f"{shard:03d}.tar")
        ids += [f"{uri}#{name}" for name, _ in contents if name.endswith(".png")]
    return World(folder, shards, ids)
