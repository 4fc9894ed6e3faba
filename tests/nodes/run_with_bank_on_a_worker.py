"""The command, with the bank server and the run's control on one worker for as long as it lives.

Ray would put them on the driver's node, whose end is that of the run.
"""

from __future__ import annotations

import sys
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mint_stream.cli.label import main
from mint_stream.pipeline import bank_actor, control


class _OnAWorker:
    """`ray` as the modules that start the actors see it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(ray, name)

    def remote(self, actor: type) -> Any:
        worker = min(node["NodeID"] for node in ray.nodes() if node["Resources"].get("CPU"))
        return ray.remote(scheduling_strategy=NodeAffinitySchedulingStrategy(worker, soft=True))(
            actor
        )


if __name__ == "__main__":
    bank_actor.ray = control.ray = _OnAWorker()  # type: ignore[assignment]
    sys.exit(main())
