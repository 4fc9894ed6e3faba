"""What a run could not have and leaves for the next one, and what is said of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from mint_stream.input.frames import Left
from mint_stream.input.shard import Shard
from mint_stream.input.units import LeftBehind
from mint_stream.output.done import load_done, settled_frames
from mint_stream.pipeline.summary import RunFailed
from mint_stream.store.errors import StorageError, StoreUnreachable
from mint_stream.store.store import Store

MOST_UNREACHABLE = 3
"""Shards in a row that a run gives up for, once it has waited out the retries for each."""


@dataclass
class Leftovers:
    """What a run has left so far, each once, by its address."""

    what: dict[str, LeftBehind] = field(default_factory=dict)
    _unreachable: int = 0

    def add(self, left: Sequence[LeftBehind]) -> None:
        """More of it, all of one shard or group.

        Raises `RunFailed` where the store has been out of reach for so long that it may stay so.
        """
        self.what.update((each.uri, each) for each in left)
        last = next((e for e in left if e.error_type == StoreUnreachable.__name__), None)
        self._unreachable += last is not None
        if last is not None and self._unreachable >= MOST_UNREACHABLE:
            raise RunFailed(
                f"{self._unreachable} shards in a row could not be read: {last.message}"
            )

    def add_shard(self, shard: Shard, error: StorageError) -> None:
        """A shard that could not even be counted."""
        self.add([LeftBehind.of(shard, Left(None, shard.uri, None, 0, error))])

    def committed(self) -> None:
        """Told of each unit: the store is within reach."""
        self._unreachable = 0

    def settle(self, store: Store, unit_size: int) -> None:
        """Forget what has been committed since, by another attempt at it or in another version.

        Raises `StorageError`.
        """
        if not self.what:
            return
        done = load_done(store, unit_size)
        frames = settled_frames(store) if any(e.is_image for e in self.what.values()) else ()
        self.what = {
            uri: each
            for uri, each in self.what.items()
            if not (uri in frames if each.is_image else done.is_settled(each.shard_id))
        }

    @property
    def shards(self) -> int:
        """Shards that were not read, or not to their end."""
        return sum(not each.is_image for each in self.what.values())

    @property
    def images(self) -> int:
        """Loose images that were not read."""
        return sum(each.is_image for each in self.what.values())

    @property
    def reasons(self) -> dict[str, int]:
        """How many for each type of error."""
        return dict(Counter(each.error_type for each in self.what.values()).most_common())

    @property
    def example(self) -> str | None:
        """What was said of the first of them."""
        return next((each.message for each in self.what.values()), None)
