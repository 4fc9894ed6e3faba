"""kill -9 of a chosen process, before or after a chosen operation, exactly once for each kill.

A `Plan` lies in a folder that every process of a run can see. Where an operation is about to
happen, or has happened, `reached` looks for a kill that is due there, claims it with an exclusive
create, and sends the signal. Nothing here is known to the product.
"""

from __future__ import annotations

import functools
import json
import os
import secrets
import signal
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from drivers import TOKEN, wait_until

from mint_stream.storage import Store

PLAN = "MINT_TEST_KILLS"
"""Variable that names the folder of the plan."""
POINTS = ("merge", "rejects", "log", "labels", "checkpoint", "manifest", "removal")
"""Operations: a unit's merge, its objects; a checkpoint's Parquet, its JSON; a log object's end."""
MOMENTS = ("before", "after")
VICTIMS = ("labeler", "read", "commit", "bank", "worker", "driver")
LEAD = 4
"""Units that may come after one at which a kill is due, before it has happened."""


@dataclass(frozen=True)
class Kill:
    """One kill: of whom, and at which operation once `after_units` units are committed."""

    victim: str
    moment: str
    point: str
    after_units: int

    def __str__(self) -> str:
        return f"{self.victim} {self.moment} {self.point} after {self.after_units}"


@dataclass(frozen=True)
class Done:
    """A kill that happened."""

    kill: Kill
    pid: int
    by: int
    """Process that sent the signal."""
    committed: int
    """Units that were committed by then."""


class Plan:
    """The kills of one test, in a folder; those that happened are files in it."""

    def __init__(self, folder: Path, output: str, kills: Iterable[Kill]) -> None:
        self.folder, self.output, self.kills = folder, output, list(kills)
        self._store = Store(output)

    def save(self) -> None:
        for name in ("pids", "done", "removed"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        content = {"output": self.output, "kills": [asdict(kill) for kill in self.kills]}
        (self.folder / "plan.json").write_text(json.dumps(content))

    @classmethod
    def load(cls, folder: Path) -> Plan:
        content = json.loads((folder / "plan.json").read_text())
        return cls(folder, content["output"], [Kill(**kill) for kill in content["kills"]])

    def committed(self) -> int:
        """Units that are committed now."""
        return len(self._store.list("labels/"))

    def checkpointed(self) -> int:
        """The highest seq that a complete checkpoint holds."""
        names = [info.name for info in self._store.list("bank/checkpoints/")]
        return max((int(n.split("/")[-1][:12]) for n in names if n.endswith(".json")), default=0)

    def marker(self, kill: Kill) -> Path:
        return self.folder / "done" / f"{kill}.json"

    def done(self) -> list[Done]:
        """The kills that happened, in the order in which they did."""
        paths = sorted((self.folder / "done").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        contents = [json.loads(path.read_text()) for path in paths]
        return [Done(**{**content, "kill": Kill(**content["kill"])}) for content in contents]

    def removed(self) -> dict[str, bytes]:
        """Log objects that were removed, kept aside."""
        folder = self.folder / "removed"
        return {f"bank/log/{path.name}": path.read_bytes() for path in folder.iterdir()}

    def register(self, role: str) -> None:
        """Note that this process plays `role`."""
        (self.folder / "pids" / f"{role}-{os.getpid()}").touch()

    def find(self, role: str, token: str) -> psutil.Process | None:
        """A living process of the driver with `token` that plays `role`, the latest one."""
        if role == "worker":
            return _worker(token)
        paths = (self.folder / "pids").glob(f"{role}-*")
        for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True):
            process = _own(int(path.name.rpartition("-")[2]), token)
            if process is not None:
                return process
        return None

    def strike(self, kill: Kill, committed: int) -> bool:
        """Kill -9, once; False if it was done before or there is nobody to kill."""
        victim = self.find(kill.victim, os.environ[TOKEN])
        if victim is None:
            return False
        done = {"kill": asdict(kill), "pid": victim.pid, "by": os.getpid(), "committed": committed}
        claim = self.folder / f"claim-{secrets.token_hex(8)}"
        claim.write_text(json.dumps(done))
        try:
            os.link(claim, self.marker(kill))
        except FileExistsError:
            return False
        victim.send_signal(signal.SIGKILL)
        psutil.wait_procs([victim], timeout=30)
        return True

    def release(self, unit: int) -> None:
        """Wait until it is time to read unit number `unit`.

        That keeps the parts of a run together, so that there is always something in flight and
        something committed: no more than a few units are under way, the ones before them are in a
        checkpoint, and every kill has its commits afterwards.
        """

        def due() -> bool:
            overdue = [k for k in self.kills if k.after_units <= unit - LEAD]
            return (
                self.committed() >= unit - 2
                and self.checkpointed() >= unit - LEAD
                and all(self.marker(kill).exists() for kill in overdue)
            )

        wait_until(due, f"unit {unit} may be read: {[str(k) for k in self.kills]}", within_s=200)


@functools.cache
def plan() -> Plan:
    """The plan of this process's run."""
    return Plan.load(Path(os.environ[PLAN]))


def reached(point: str, moment: str) -> None:
    """To be called at each operation: carries out the kills that are due."""
    here = [kill for kill in plan().kills if (kill.point, kill.moment) == (point, moment)]
    for kill in here:
        if plan().marker(kill).exists():
            continue
        committed = plan().committed()
        if committed >= kill.after_units and plan().strike(kill, committed):
            if kill.victim == "driver":
                # The run is over, and so is this process, which would otherwise go on for a while.
                signal.pause()
            return


def _worker(token: str) -> psutil.Process | None:
    """The process of this cluster that answers the question whether to stop."""
    for process in psutil.process_iter(["cmdline"]):
        title = (process.info["cmdline"] or [""])[0]
        if title.startswith("ray::RunControl") and (own := _own(process.pid, token)) is not None:
            return own
    return None


def _own(pid: int, token: str) -> psutil.Process | None:
    """The process `pid`, if it is alive and belongs to that driver: numbers are used again."""
    try:
        process = psutil.Process(pid)
        alive = process.status() != psutil.STATUS_ZOMBIE
        return process if alive and process.environ().get(TOKEN) == token else None
    except psutil.Error:
        return None
