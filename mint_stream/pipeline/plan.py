"""What is left to do of the shards that there are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from mint_stream.input.grid import unit_id
from mint_stream.input.shard import Shard
from mint_stream.input.units import ShardTask
from mint_stream.output.done import Done
from mint_stream.store.errors import StorageError

REPLACED = (
    "another version of this shard was labelled before, in whole or in part, and its frames have "
    "the same ids: give the new version a name of its own, or label it into another --output"
)


def plan_again(
    shards: Iterable[Shard], done: Done, units: Collection[str]
) -> tuple[list[ShardTask], set[str]]:
    """Tasks for committed `units`, and those of them that are in none of `shards`."""
    left: list[ShardTask] = []
    missing = set(units)
    for shard in shards:
        starts = done.progress(shard.id).frames_from
        wanted = {start for start in starts if unit_id(shard.id, start) in missing}
        if wanted:
            others = {start: n for start, n in starts.items() if start not in wanted}
            stop = max(start + starts[start] for start in wanted)
            left.append(ShardTask(shard=shard, frames_from=others, stop=stop))
            missing -= {unit_id(shard.id, start) for start in wanted}
    return left, missing


def plan(
    shards: Iterable[Shard],
    done: Done,
    frames_of: Callable[[Shard], int],
    limit: int | None,
    *,
    counted: int = 0,
    leave: Callable[[Shard, StorageError], None],
) -> list[ShardTask]:
    """Tasks for what is left to do of `shards`.

    With `limit` only the first `limit` frames count; `frames_of` is asked for the size of a shard
    that was not read to its end before. One for which that fails does not count, and `leave` is
    told of it. `counted`: frames of the input that are done and stand in none of `shards`.
    """
    left: list[ShardTask] = []
    frames = counted
    for shard in shards:
        progress = done.progress(shard.id)
        # Of loose images those that are done were left out, whatever a group before was called.
        refused = shard.kind != "images" and done.replaced(shard.id)
        if refused and not progress.frames_from:
            left.append(ShardTask(shard=shard, refused=REPLACED))
            continue
        stop = None
        if limit is not None:
            if frames >= limit:
                break
            total = done.frames_in(shard.id)
            try:
                total = frames_of(shard) if total is None else total
            except StorageError as error:
                leave(shard, error)
                continue
            stop = limit - frames if frames + total > limit else None
            frames += total
        complete = done.is_complete(shard.id) if stop is None else progress.is_complete(stop)
        if not complete:
            left.append(ShardTask(shard=shard, frames_from=progress.frames_from, stop=stop))
    return left
