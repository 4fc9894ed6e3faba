"""What the tasks of a run ask: whether to stop, which shards were handed out, and who died reading.

Ray repeats a task that died, and takes what the first attempt has yielded as yielded, by position.
So a source whose order depends on when it looked has to yield the same again: it notes here what
it hands out before it does. And so a reader notes how far it has got before it hands on a parcel:
who follows one that died hands on the same, and can stop where those before it died.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, field

import ray
from ray.actor import ActorHandle

from mint_stream.input.units import LeftBehind, ShardTask

_ASK_AGAIN_S = 0.25
"""How long an answer to `stopping` is good for: asking takes a millisecond, a unit maybe ten."""


@dataclass
class _Reading:
    """A shard that is being read."""

    deaths: int = 0
    """Attempts in a row that died reading, and got no further than those before."""
    units: int = 0
    """What the best attempt got through."""
    complete: bool = False
    waits: bool = False
    """Whether it waits to hand on what it has read."""


class RunControl:
    """The notes of a run, as an actor of their own."""

    def __init__(self) -> None:
        self._stopping = False
        self._handed_out: list[ShardTask] = []
        self._reading: dict[int, _Reading] = {}
        self._left: list[LeftBehind] = []

    def stop(self) -> None:
        """Finish the units in flight and hand out no more."""
        self._stopping = True

    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping

    def hand_out(self, start: int, shards: list[ShardTask]) -> int:
        """Note that the source yields `shards`, from position `start` on; gives what is noted.

        Fewer than `start` are where this was started again: then nothing is added.
        """
        if start <= len(self._handed_out):
            self._handed_out[start:] = shards
        return len(self._handed_out)

    def handed_out(self) -> list[ShardTask]:
        """What was handed out so far, in order."""
        return self._handed_out

    def begin_reading(self, shard: int) -> tuple[int, int | None]:
        """Note that the shard of that number is read, from its start.

        Gives how many attempts died in a row at the same place, and how many of its units the best
        one got through; None if that were all.
        """
        reading = self._reading.get(shard)
        if reading is None:
            reading = self._reading[shard] = _Reading()
        elif not reading.waits:
            # Who dies while it waits to hand on what it has read does not die of reading.
            reading.deaths += 1
        reading.waits = False
        return reading.deaths, None if reading.complete else reading.units

    def reached(self, shard: int, units: int, complete: bool) -> None:
        """Note that so many units of a shard, or all of them, were read."""
        reading = self._reading.setdefault(shard, _Reading())
        reading.waits = True
        if units > reading.units or complete > reading.complete:
            reading.deaths, reading.units = 0, max(units, reading.units)
            reading.complete |= complete

    def read_on(self, shard: int) -> None:
        """Note that what `reached` told of was handed on, and reading goes on."""
        self._reading.setdefault(shard, _Reading()).waits = False

    def end_reading(self, shard: int) -> None:
        """Note that all of a shard was handed on."""
        self._reading.pop(shard, None)

    def leave(self, left: list[LeftBehind]) -> None:
        """Note what was handed out and could not be had."""
        self._left.extend(left)

    def left(self) -> list[LeftBehind]:
        """All that could not be had so far, in order. Started again, this has forgotten it: what
        it was is then left for the next run."""
        return self._left


@dataclass
class RemoteControl:
    """A `RunControl` as tasks and the driver know it."""

    actor: ActorHandle
    _stopping: bool = field(default=False, init=False)
    _asked_s: float = field(default=float("-inf"), init=False)

    @property
    def asked_here(self) -> bool:
        """Whether `stop` was called, or seen to have been, in this process; asks nobody."""
        return self._stopping

    def stop(self) -> None:
        """See `RunControl.stop`; does not wait."""
        self._stopping = True
        self.actor.stop.remote()

    def stopping(self) -> bool:
        """See `RunControl.stopping`; as it was at most a quarter of a second ago."""
        if self._stopping:
            return True
        # The clock may be that of another machine, from where this has travelled here.
        if not 0 <= time.monotonic() - self._asked_s < _ASK_AGAIN_S:
            self._stopping = bool(ray.get(self.actor.stopping.remote()))
            self._asked_s = time.monotonic()
        return self._stopping

    def hand_out(self, start: int, shards: list[ShardTask]) -> int:
        """See `RunControl.hand_out`."""
        return int(ray.get(self.actor.hand_out.remote(start, shards)))

    def handed_out(self) -> list[ShardTask]:
        """See `RunControl.handed_out`."""
        shards: list[ShardTask] = ray.get(self.actor.handed_out.remote())
        return shards

    def begin_reading(self, shard: int) -> tuple[int, int | None]:
        """See `RunControl.begin_reading`."""
        deaths, units = ray.get(self.actor.begin_reading.remote(shard))
        return deaths, units

    def reached(self, shard: int, units: int, complete: bool) -> None:
        """See `RunControl.reached`; it is noted when this returns."""
        ray.get(self.actor.reached.remote(shard, units, complete))

    def read_on(self, shard: int) -> None:
        """See `RunControl.read_on`; it is noted when this returns."""
        ray.get(self.actor.read_on.remote(shard))

    def end_reading(self, shard: int) -> None:
        """See `RunControl.end_reading`; does not wait."""
        self.actor.end_reading.remote(shard)

    def leave(self, left: list[LeftBehind]) -> None:
        """See `RunControl.leave`; does not wait."""
        self.actor.leave.remote(left)

    def left(self) -> list[LeftBehind]:
        """See `RunControl.left`."""
        left: list[LeftBehind] = ray.get(self.actor.left.remote())
        return left

    def end(self) -> None:
        """End the actor."""
        ray.kill(self.actor)


def was_started_again() -> bool:
    """Whether the actor that asks died before, and Ray has started it again."""
    with warnings.catch_warnings():
        # It is right; what Ray warns of is how Ray itself looks up the actor.
        warnings.simplefilter("ignore")
        return bool(ray.get_runtime_context().was_current_actor_reconstructed)


def start_run_control() -> RemoteControl:
    """A fresh `RunControl`. It is started again if it dies, and has then forgotten."""
    actor = ray.remote(RunControl).options(num_cpus=0, max_restarts=-1, max_task_retries=-1)
    return RemoteControl(actor.remote())
