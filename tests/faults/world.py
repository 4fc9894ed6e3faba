"""An input with bad frames in it, and runs over it in which processes are killed."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
from armed import execute
from drivers import Driver
from kills import Kill, Plan
from stages import FRAMES, killing_read_units
from tiny import Assets, members, put, tar, write_assets

UNIT = 4


@dataclass(frozen=True)
class World:
    """An input below `root`, where outputs go as well, and a tiny CLIP in `folder`."""

    folder: Path
    root: str
    shards: int
    ids: list[str]

    @property
    def units(self) -> int:
        return self.shards * FRAMES // UNIT

    def plan(self, folder: Path, kills: tuple[Kill, ...] = ()) -> Plan:
        """A plan with its notes in `folder`, for a run with an output of its own."""
        return Plan(folder, f"{self.root}/out-{secrets.token_hex(4)}", kills).prepare()

    def run(
        self, plan: Plan, read_units: Callable[..., object] = killing_read_units, **settings: Any
    ) -> None:
        """Run in this process, until the run is complete, with frequent checkpoints."""
        assets = Assets(self.folder / "clip", self.folder / "labels.txt")
        small = {"unit_size": UNIT, "checkpoint_every_s": 0.2}
        config = assets.config(f"{self.root}/in", plan.output, **{**small, **settings})
        execute(config, plan, read_units)

    def drivers(self, plan: Plan, **settings: Any) -> Driver:
        """A process in which one driver follows the other until one completes the run.

        They join this process's cluster, as those of `ray job submit` do: what a killed one leaves
        behind is Ray's to end, while the next one is at work already.
        """
        config = plan.folder / "drivers.json"
        world = {"folder": str(self.folder), "root": self.root, "shards": self.shards}
        kills = [asdict(kill) for kill in plan.kills]
        content = {"world": world, "output": plan.output, "kills": kills, "settings": settings}
        config.write_text(json.dumps(content))
        environment = {
            "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
            # Ray Data keeps the share of a killed driver for it, by default for three minutes; on
            # two cores the third driver would not get what it takes to commit.
            "RAY_DATA_AUTOSCALING_REQUEST_EXPIRE_TIME_S": "2",
            "RAY_DATA_MIN_GAP_BETWEEN_AUTOSCALING_REQUESTS": "1",
        }
        return Driver(["tests/faults/drivers_in_turn.py", str(config)], environment=environment)


def make_world(folder: Path, shards: int, root: str | None = None) -> World:
    """`shards` tars of FRAMES frames each; one in five cannot be decoded."""
    write_assets(folder)
    root = root or str(folder)
    ids = []
    for shard in range(shards):
        contents = members(range(shard * FRAMES, (shard + 1) * FRAMES), cameras=("a", "b"))
        spoilt = [
            (name, b"spoilt" if name.endswith("2.png") or name.endswith("7.png") else data)
            for name, data in contents
        ]
        store = put(f"{root}/in", {f"{shard:03d}.tar": tar(spoilt)})
        uri = store.uri(f"{shard:03d}.tar")
        ids += [f"{uri}#{name}" for name, _ in contents if name.endswith(".png")]
    return World(folder, root, shards, ids)
