"""The source of the dataset, and the stage that reads units from shards.

`ShardSource` hands out shards that are not yet done: those there are, or with `follow` those that
keep arriving. `read_shard` reads one and yields its units one by one, decoded.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from mint_stream.input.discovery import discover
from mint_stream.input.grid import address
from mint_stream.input.left_out import LeftOut
from mint_stream.input.shard import Shard
from mint_stream.input.units import Control, LeftBehind, ShardTask, loose_frames
from mint_stream.output.done import load_done, settled_frames
from mint_stream.pipeline.plan import REPLACED
from mint_stream.pipeline.rows import SHARD_ROW, shard_row
from mint_stream.store.store import Store

log = logging.getLogger(__name__)

_LONGEST_REST = 64
"""Listings between two attempts at what cannot be had."""


@dataclass(frozen=True, kw_only=True)
class FollowConfig:
    """How a growing input is listed."""

    input: str
    output: Store
    """Whose frames are not to be labelled again."""
    unit_size: int
    poll_s: float
    known: frozenset[str]
    """Ids of the shards that were there at the start, done or among the first."""


class ShardSource(Datasource):
    """One read task that yields a row a shard: `first`, then with `follow` each that arrives.

    The order is that of `discover`: by name, the new ones of each listing after those before.
    """

    def __init__(
        self, first: list[ShardTask], control: Control, follow: FollowConfig | None = None
    ) -> None:
        super().__init__()
        self._first, self._control, self._follow = first, control, follow

    def get_name(self) -> str:
        """Name of the operator in progress bars and the dashboard."""
        return "Follow" if self._follow else "Discover"

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown: shards are references, not data."""
        return None

    def get_read_tasks(self, *_: Any, **__: Any) -> list[ReadTask]:
        """One task, whose generator is the listing."""
        first, follow, control = self._first, self._follow, self._control

        def read() -> Iterator[pa.Table]:
            arriving = () if follow is None else _arrivals(follow, first, control)
            for number, task in enumerate(chain(first, arriving)):
                yield shard_row(number, task)

        return [ReadTask(read, BlockMetadata(None, None, None), schema=SHARD_ROW)]


def _arrivals(
    follow: FollowConfig, first: list[ShardTask], control: Control
) -> Iterator[ShardTask]:
    """Shards that appear, each once its size and version are the same in two listings.

    Repeated after its process died, it yields what it yielded before, in that order, and goes on.
    """
    handed_out = control.handed_out()
    yield from handed_out
    listing = _Listing(follow, [*first, *handed_out])
    while not control.stopping():
        for task in listing.stable(control.left()):
            handed_out.append(task)
            noted = control.hand_out(len(handed_out) - 1, handed_out[-1:])
            if noted < len(handed_out):
                control.hand_out(noted, handed_out[noted:])
            yield task
        _wait(follow.poll_s, control)


class _Listing:
    """An input that grows: what is new in it since the last look, and no longer being written.

    What was handed out and could not be had is new again: at the next look but one, later and
    later where that happens again and again.
    """

    def __init__(self, follow: FollowConfig, handed_out: list[ShardTask]) -> None:
        self._follow = follow
        self._known = set(follow.known)
        self._images: set[str] | None = None
        self._before: dict[str, str] = {}
        self._kinds_left_out: frozenset[str] | None = None
        self._handed_out = [task.shard for task in handed_out]
        self._known |= {shard.id for shard in self._handed_out}
        self._addresses = {address(known) for known in self._known}
        self._looks = 0
        self._noted = 0
        self._resting: list[tuple[int, LeftBehind]] = []
        self._tries: Counter[str] = Counter()
        self._again: set[str] = set()

    def stable(self, left: Sequence[LeftBehind] = ()) -> list[ShardTask]:
        """Tasks for the new shards that looked the same the time before.

        left: all that could not be had so far.
        """
        self._take_back(left)
        seen: dict[str, str] = {}
        found = []
        for shard in self._shards():
            if shard.id in self._known:
                continue
            seen[shard.uri] = shard.id
            if self._before.get(shard.uri) != shard.id:
                continue
            task = self._task(shard)
            if task is None:
                continue
            found.append(task)
            self._known.add(shard.id)
            self._addresses.add(address(shard.id))
            if self._images is not None:
                self._images.update(loose_frames(shard))
        self._before = seen
        return found

    def _task(self, shard: Shard) -> ShardTask | None:
        """A task for a new shard; None while it is not known what becomes of its other version."""
        unit_size, where = self._follow.unit_size, address(shard.id)
        under_way = where in self._addresses
        # Of loose images only those that are new are in a group, whatever it is called.
        if shard.kind == "images" or not (under_way or where in self._again):
            return ShardTask(shard=shard)
        done = load_done(self._follow.output, unit_size, of=where)
        progress = done.progress(shard.id)
        if done.replaced(shard.id) and not progress.frames_from:
            return ShardTask(shard=shard, refused=REPLACED)
        return None if under_way else ShardTask(shard=shard, frames_from=progress.frames_from)

    def _take_back(self, left: Sequence[LeftBehind]) -> None:
        """Have what is newly among `left` listed again, after a rest."""
        self._looks += 1
        for what in left[self._noted :]:
            self._tries[what.uri] += 1
            rest = min(2 ** self._tries[what.uri], _LONGEST_REST) - 1
            self._resting.append((self._looks + rest, what))
        self._noted = len(left)
        due = [what for look, what in self._resting if look <= self._looks]
        self._resting = [(look, what) for look, what in self._resting if look > self._looks]
        for what in due:
            if what.is_image:
                self._taken_images().discard(what.uri)
            else:
                self._known.discard(what.shard_id)
                self._addresses.discard(address(what.shard_id))
                self._again.add(address(what.shard_id))

    def _shards(self) -> list[Shard]:
        follow, left_out = self._follow, LeftOut()
        shards = discover(
            follow.input,
            unit_size=follow.unit_size,
            taken=self._images or (),
            left_out=left_out,
        )
        told = left_out.kinds if self._kinds_left_out is None else self._kinds_left_out
        if left_out.kinds - told:
            log.warning("files of other kinds that are not read have arrived: %s", left_out)
        self._kinds_left_out = told | left_out.kinds
        if self._images is None and any(shard.kind == "images" for shard in shards):
            # Loose images are grouped anew as their folder grows: what counts is each of them.
            taken = self._taken_images()
            shards = discover(follow.input, unit_size=follow.unit_size, taken=taken)
        return shards

    def _taken_images(self) -> set[str]:
        if self._images is None:
            handed_out = (frame for shard in self._handed_out for frame in loose_frames(shard))
            self._images = {*settled_frames(self._follow.output), *handed_out}
        return self._images


def _wait(seconds: float, control: Control) -> None:
    """Until the next listing, or a stop request."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not control.stopping():
        threading.Event().wait(min(0.5, max(0.0, until - time.monotonic())))
