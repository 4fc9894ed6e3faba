"""kill -9 of a chosen process, before or after a chosen operation, exactly once for each kill.

A `Plan` lies in a folder that every process of a run can see, and travels with what they are given.
Where an operation is about to happen, or has happened, `Plan.reached` looks for a kill that is due
there, claims it with an exclusive create, and sends the signal. Nothing here is known to the
product, and nothing here imports more than the process would have imported anyway.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from drivers import wait_until

from mint_stream.store.store import Store

OPERATIONS = ("merge", "rejects", "log", "labels", "checkpoint", "manifest", "removal")
"""A unit's merge, its objects; a checkpoint's Parquet, its JSON; the removal of a log object."""
POINTS = tuple(
    (moment, operation)
    for operation in OPERATIONS
    for moment in ("before", "after")
    # Which is right after the checkpoint's Parquet.
    if (moment, operation) != ("before", "manifest")
)
VICTIMS = ("labeler", "read", "commit", "bank", "worker", "driver")
"""`worker`: the process that tells the tasks whether to stop. Several, as in `bank+labeler`, die
together."""
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
    pids: list[int]
    by: int
    """Process that sent the signal."""
    committed: int
    """Units that were committed by then."""


@dataclass(frozen=True)
class Plan:
    """The kills of one test; those that happened are files in `folder`."""

    folder: Path
    output: str
    kills: tuple[Kill, ...] = ()

    def prepare(self) -> Plan:
        """Make the folders in which processes leave their notes."""
        for name in ("pids", "done", "removed"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        return self

    def committed(self) -> int:
        """Units that are committed now."""
        return len(Store(self.output).list("labels/"))

    def checkpointed(self) -> int:
        """The highest seq that a complete checkpoint holds."""
        names = [info.name for info in Store(self.output).list("bank/checkpoints/")]
        return max((int(n.split("/")[-1][:12]) for n in names if n.endswith(".json")), default=0)

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
        process = psutil.Process()
        (self.folder / "pids" / f"{role}-{process.pid}-{process.create_time()}").touch()

    def first_time(self, what: str) -> bool:
        """Whether nobody has asked this before."""
        try:
            (self.folder / f"first-{what}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def find(self, role: str) -> psutil.Process | None:
        """A living process that plays `role`, the one that said so last."""
        paths = (self.folder / "pids").glob(f"{role}-*")
        for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True):
            _, pid, created = path.name.split("-")
            process = _alive(int(pid), float(created))
            if process is not None:
                return process
        return None

    def around(self, point: str, operation: Callable[..., Any], *arguments: Any) -> Any:
        """Carry out `operation`, and before and after it the kills that are due."""
        self.reached(point, "before")
        answer = operation(*arguments)
        self.reached(point, "after")
        return answer

    def reached(self, point: str, moment: str) -> None:
        """Carry out a kill that is due here."""
        here = [kill for kill in self.kills if (kill.point, kill.moment) == (point, moment)]
        for kill in here:
            if self._marker(kill).exists():
                continue
            committed = self.committed()
            if committed >= kill.after_units and self._strike(kill, committed):
                if kill.victim == "driver":
                    # The run is over, and so is this process, which would otherwise go on a while.
                    signal.pause()
                return

    def release(self, unit: int) -> None:
        """Wait until it is time to read unit number `unit`.

        That keeps the parts of a run together, so that there is always something in flight and
        something committed: no more than a few units are under way, the ones before them are in a
        checkpoint, and every kill has its commits afterwards.
        """

        def due() -> bool:
            if self.kills and self.checkpointed() < unit - LEAD:
                return False
            committed = self.committed()
            # With nothing under way a kill that is due would wait for ever: its victim was not
            # there when it was its turn.
            return committed >= unit or (committed >= unit - 2 and not self._overdue(unit))

        try:
            wait_until(due, f"unit {unit} may be read", within_s=120)
        except AssertionError as error:
            raise AssertionError(
                f"{error}: {self.committed()} committed, {self.checkpointed()} in a checkpoint, "
                f"overdue: {[str(kill) for kill in self._overdue(unit)]}"
            ) from error

    def _overdue(self, unit: int) -> list[Kill]:
        return [
            kill
            for kill in self.kills
            if kill.after_units <= unit - LEAD and not self._marker(kill).exists()
        ]

    def _marker(self, kill: Kill) -> Path:
        return self.folder / "done" / f"{kill}.json"

    def _strike(self, kill: Kill, committed: int) -> bool:
        """Kill -9, once; False if it was done before or there is nobody to kill."""
        victims = [v for role in kill.victim.split("+") if (v := self.find(role)) is not None]
        if len(victims) <= kill.victim.count("+"):
            return False
        # Whoever strikes goes last.
        victims.sort(key=lambda victim: victim.pid == os.getpid())
        pids = [victim.pid for victim in victims]
        done = {"kill": asdict(kill), "pids": pids, "by": os.getpid(), "committed": committed}
        claim = self.folder / f"claim-{secrets.token_hex(8)}"
        claim.write_text(json.dumps(done))
        try:
            os.link(claim, self._marker(kill))
        except FileExistsError:
            return False
        for victim in victims:
            victim.send_signal(signal.SIGKILL)
        psutil.wait_procs(victims, timeout=30)
        return True


def _alive(pid: int, created: float) -> psutil.Process | None:
    """The process `pid`, if it is still the one that was created then: numbers are used again."""
    try:
        process = psutil.Process(pid)
        same = process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE
        return process if same else None
    except psutil.Error:
        return None
