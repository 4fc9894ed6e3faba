"""Drivers of the real pipeline, each of which may be killed: drivers_in_turn.py CONFIG.

As a person would, this starts the next one at once when one was killed, until one comes to its
end. Each is a fork of this process, so that it need not import everything again.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from kills import Kill, Plan
from world import World


def main() -> int:
    path = Path(sys.argv[1])
    config = json.loads(path.read_text())
    while True:
        pid = os.fork()
        if pid == 0:
            os._exit(drive(path.parent, config))
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code != -signal.SIGKILL:
            return code


def drive(folder: Path, config: dict[str, Any]) -> int:
    about = config["world"]
    world = World(Path(about["folder"]), about["root"], about["shards"], [])
    plan = Plan(folder, config["output"], tuple(Kill(**kill) for kill in config["kills"]))
    plan.register("driver")
    try:
        world.run(plan, **config["settings"])
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
